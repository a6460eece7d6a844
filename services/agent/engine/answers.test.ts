import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ModelEvent } from "../llm/chat-model.ts";
import { ModelError } from "../llm/model-error.ts";
import { call, finish, type Script, text, thinking, used } from "../llm/testing/scripted-model.ts";
import type { EngineEvent } from "./events.ts";
import { play } from "./testing/play.ts";

const of = <T extends EngineEvent["type"]>(events: EngineEvent[], type: T) =>
  events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);
const retry = { type: "retry", attempt: 2, delayMs: 5, kind: "server" } as const;

describe("an answer that says nothing", () => {
  test("is told as empty and leaves nothing in the history, also where there was blank text or only thinking", async () => {
    const scripts: Script[] = [
      [finish()],
      [{ type: "text_delta", text: " \n " }, finish()],
      [...thinking("I see."), finish()],
      [...thinking("I see."), { type: "text_delta", text: "\n" }, finish()],
    ];
    for (const script of scripts) {
      const { events, history, result } = await play([script]);
      assert.equal(result?.outcome, "ANSWERED");
      assert.deepEqual(
        of(events, "notice").map(({ reason }) => reason),
        ["EMPTY_ANSWER"],
      );
      assert.equal(history.length, 1, JSON.stringify(history));
      assert.deepEqual(of(events, "step_completed")[0]?.messages, []);
    }
  });

  test("is kept where the model paused in its thinking: it goes on from there", async () => {
    const { model, result, history } = await play([
      [...thinking("Step one.", "c2lnbmVk"), finish("pause")],
      [...text("Done."), finish()],
    ]);
    assert.equal(result?.text, "Done.");
    const part = { type: "thinking", text: "Step one.", signature: "c2lnbmVk", origin: "anthropic" };
    assert.deepEqual(model.requests[1]?.messages.at(-1), { role: "assistant", content: [part] });
    assert.equal(history.length, 3);
  });

  test("is not kept where it paused before it had thought of anything", async () => {
    const { model, history } = await play([[finish("pause")], [...text("Done."), finish()]]);
    assert.equal(model.requests[1]?.messages.length, 1);
    assert.equal(history.length, 2);
  });
});

describe("thinking", () => {
  test("behaviour 21: is shown as it comes, in an item of its own, before it is whole", async () => {
    const { events } = await play([[...thinking("One two three."), ...text("Hi"), finish()]]);
    const deltas = of(events, "reasoning_delta");
    assert.deepEqual(
      deltas.map((delta) => [delta.offset, delta.text]),
      [
        [0, "One "],
        [4, "two "],
        [8, "three."],
      ],
    );
    const [done] = of(events, "reasoning_completed");
    assert.equal(done?.text, "One two three.");
    assert.deepEqual(new Set(deltas.map(({ itemId }) => itemId)), new Set([done.itemId]));
    assert.match(done.itemId, /^rsn_/);
  });

  test("that comes whole and without deltas is shown whole", async () => {
    const part = { type: "thinking", text: "All at once.", signature: "c2ln", origin: "anthropic" } as const;
    const { events } = await play([[{ type: "thinking", part }, ...text("Hi"), finish()]]);
    assert.deepEqual(
      of(events, "reasoning_delta").map(({ text: shown }) => shown),
      ["All at once."],
    );
    assert.equal(of(events, "reasoning_completed").length, 1);
  });

  test("of which the provider shows nothing is kept for it, and nothing of it is told", async () => {
    const { events, history } = await play([[...thinking("", "c2VjcmV0"), ...text("Hi"), finish()]]);
    assert.deepEqual([of(events, "reasoning_delta"), of(events, "reasoning_completed")], [[], []]);
    const part = { type: "thinking", text: "", signature: "c2VjcmV0", origin: "anthropic" };
    assert.deepEqual(history[1]?.content, [part, { type: "text", text: "Hi" }]);
    assert.doesNotMatch(JSON.stringify(events.filter(({ type }) => type !== "step_completed")), /c2VjcmV0/);
  });
});

describe("what a provider says of a call", () => {
  test("arguments of a call that it never began are nobody's", async () => {
    const stray: ModelEvent = { type: "tool_arguments_delta", id: "toolu_nobody", json: '{"a":' };
    const { result, events } = await play([[stray, ...text("Hi"), finish()]]);
    assert.equal(result?.text, "Hi");
    assert.deepEqual(of(events, "tool_call_arguments_delta"), []);
  });

  test("a second attempt whose calls have the ids of the first begins them anew", async () => {
    const [begun, half] = call("t", { a: 1 }, "call_0");
    const { events, executed, history } = await play(
      [
        [
          begun as ModelEvent,
          half as ModelEvent,
          { type: "discard" },
          retry,
          ...call("t", { a: 2 }, "call_0"),
          finish("tool_use"),
        ],
        [...text("Done."), finish()],
      ],
      { tools: { t: {} } },
    );
    const started = of(events, "tool_call_started").map(({ itemId }) => itemId);
    assert.equal(new Set(started).size, 2);
    assert.deepEqual(executed, ['t {"a":2}']);
    const [asked] = history[1]?.content ?? [];
    assert.equal(asked?.type === "tool_call" && asked.callId, started[1]);
  });

  test("a call that was begun and not given whole is void as not executed", async () => {
    const [begun] = call("t", {}, "toolu_half");
    const { events } = await play(
      [
        [begun as ModelEvent, ...call("t", {}, "toolu_whole"), finish("tool_use")],
        [...text("Done."), finish()],
      ],
      { tools: { t: {} } },
    );
    assert.deepEqual(of(events, "item_discarded"), [{ type: "item_discarded", step: 1, cause: "not_executed" }]);
  });

  test("a notice keeps its facts; one without has none", async () => {
    const { events } = await play([
      [
        { type: "notice", reason: "A", message: "a", facts: { model: "m-1" } },
        { type: "notice", reason: "B", message: "b" },
        ...text("Hi"),
        finish(),
      ],
    ]);
    assert.deepEqual(
      of(events, "notice").map(({ reason, facts }) => [reason, facts]),
      [
        ["A", { model: "m-1" }],
        ["B", {}],
      ],
    );
  });

  test("behaviour 46: an attempt that broke off is booked once it has said something, also where its usage is not known", async () => {
    const broken = new ModelError("connection", { retryable: true });
    const cases: [Script, number][] = [
      [[broken], 0],
      [[{ type: "notice", reason: "A", message: "a" }, broken], 0],
      [[...text("Half"), broken], 1],
      [[{ type: "thinking_delta", text: "Hm" }, broken], 1],
      [[...call("t").slice(0, 1), broken], 1],
      [[...text("Half"), { type: "discard" }, retry, broken], 1],
      [[...text("Half"), { type: "discard" }, retry, ...text("Again"), broken], 2],
      [[retry, broken], 0],
    ];
    for (const [script, booked] of cases) {
      const { events, error } = await play([script]);
      assert.equal(error, broken);
      const calls = of(events, "model_called");
      assert.equal(calls.length, booked, JSON.stringify(script));
      assert.ok(calls.every(({ aborted, usage }) => aborted && usage.inputTokens + usage.outputTokens === 0));
    }
  });

  test("usage is booked under the model's name as the provider gives it, or as it was asked for", async () => {
    for (const [given, booked] of [
      ["", "m-1"],
      ["m-1-2026-10-01", "m-1-2026-10-01"],
    ] as const) {
      const usage = { ...used(3), model: given } as ModelEvent;
      const { events, result } = await play([[usage, ...text("Hi"), finish()]]);
      assert.equal(of(events, "model_called")[0]?.usage.model, booked);
      assert.deepEqual(
        result?.usage.map(({ model }) => model),
        [booked],
      );
    }
  });
});
