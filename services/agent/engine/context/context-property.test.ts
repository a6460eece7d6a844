import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { refusal } from "#platform/testing/model-server/check-request.ts";
import { toMessagesBody } from "../../llm/anthropic-request.ts";
import type { ModelMessage } from "../../llm/chat-model.ts";
import { anyHistory, said } from "../testing/histories.ts";
import { Context } from "./context.ts";
import { estimateMessage } from "./estimate.ts";
import { fitMessages } from "./fit.ts";
import { cutHistory, roundsOf } from "./rounds.ts";
import { isSummary, summaryMessage, summaryRequest } from "./summary.ts";
import { trimHistory } from "./trim.ts";

const tools = [{ name: "a", description: "", inputSchema: {} }];
const keeps = new Map([
  ["a", 1],
  ["b", 2],
]);

/** A provider takes these messages, with one of the user behind them. */
function assertAccepted(messages: readonly ModelMessage[]): void {
  const body = toMessagesBody({ model: "m", system: "", messages: [...messages, said("next")], tools, maxTokens: 1 });
  assert.equal(refusal(body, "2026-10-21"), undefined);
  assert.equal(body.messages[0]?.role, "user");
}

describe("any history", () => {
  test("is the sum of its rounds, and each of them is accepted behind a message of the user", () => {
    fc.assert(
      fc.property(anyHistory, (history) => {
        const rounds = roundsOf(history);
        assert.deepEqual(rounds.flat(), history);
        for (const round of rounds) assertAccepted([said("x"), ...round]);
      }),
    );
  });

  test("behaviour 38: when cut loses no message, keeps its order, and stays accepted without its middle, with or without a summary", () => {
    fc.assert(
      fc.property(anyHistory, fc.integer({ min: 1, max: 6 }), (history, keepTurns) => {
        const { front, middle, tail } = cutHistory(history, keepTurns);
        const parts = [front, middle, tail];
        for (const part of parts)
          assert.deepEqual(
            part,
            history.filter((message) => part.includes(message)),
          );
        assert.equal(parts.flat().length, history.length);
        assert.deepEqual(history.slice(history.length - tail.length), tail);
        assert.ok(front.every((message) => message.role === "user"));
        assert.ok(tail.filter(({ role }) => role === "assistant").length <= keepTurns);
        assert.ok([...front, ...tail].includes(history[0] as ModelMessage), "the original request stays");
        const newest = history.findLast((message) => message.role === "user" && !message.hidden) as ModelMessage;
        assert.ok([...front, ...tail].includes(newest), "the newest request stays");
        assertAccepted([...front, ...tail]);
        assertAccepted([...front, summaryMessage("s", ["t"], "msg_s"), ...tail]);
      }),
    );
  });

  test("behaviour 38: when trimmed stays accepted, and enough is gone or only what must stay is left", () => {
    fc.assert(
      fc.property(anyHistory, fc.nat(8_000), fc.integer({ min: 1, max: 4 }), (history, excess, keepTurns) => {
        const trimmed = trimHistory(history, excess, keepTurns, estimateMessage);
        assertAccepted(trimmed.history);
        assert.deepEqual(trimHistory(history, excess, keepTurns, estimateMessage), trimmed);
        const size = (messages: readonly ModelMessage[]) => messages.reduce((sum, m) => sum + estimateMessage(m), 0);
        const { front, tail } = cutHistory(history, keepTurns);
        assert.ok(
          size(history) - size(trimmed.history) >= excess || trimmed.history.length === front.length + tail.length,
        );
        assert.equal(trimmed.dropped, history.length - trimmed.history.length);
      }),
    );
  });

  test("behaviours 31 to 34: has the same view in every run, of which errors, unseen and newest results are whole", () => {
    fc.assert(
      fc.property(anyHistory, fc.integer({ min: 1, max: 900 }), (history, batch) => {
        const step = new Context([], keeps, batch);
        const told: string[] = [];
        for (const message of history) {
          if (message.role === "assistant") told.push(...(step.evict()?.callIds ?? []));
          step.add([message]);
        }
        told.push(...(step.evict()?.callIds ?? []));
        const whole = new Context(history, keeps, batch);
        whole.evict();
        assert.deepEqual(whole.view(), step.view());
        assertAccepted(step.view());
        assert.equal(new Set(told).size, told.length, "each is told of once");
        const seenBefore = history.findLastIndex(({ role }) => role === "assistant");
        for (const [tool, keep] of keeps) {
          const results = history.flatMap((message, i) =>
            message.role !== "tool"
              ? []
              : message.content.filter((part) => part.tool === tool).map((part) => ({ part, i })),
          );
          const seen = results.filter(({ part, i }) => !part.isError && i < seenBefore);
          const mayGo = new Set(seen.slice(0, Math.max(0, seen.length - keep)).map(({ part }) => part.callId));
          for (const { part } of results) assert.ok(!told.includes(part.callId) || mayGo.has(part.callId));
        }
      }),
    );
  });

  test("fits a request for a summary, or is down to what cannot go, and stays accepted", () => {
    fc.assert(
      fc.property(anyHistory, fc.nat(6_000), (history, budget) => {
        const { front, middle } = cutHistory(history, 1);
        const fitted = fitMessages(front, middle, budget);
        const size = fitted.reduce((sum, message) => sum + estimateMessage(message), 0);
        const rounds = roundsOf(fitted.slice(front.length).filter((m) => !isSummary(m) && m.role !== "user"));
        assert.ok(size <= budget + 20 || rounds.length <= 1);
        const messages = [...fitted, summaryRequest("Sum up.")];
        assertAccepted(messages);
      }),
    );
  });
});
