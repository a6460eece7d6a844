import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { refusal } from "#platform/testing/model-server/check-request.ts";
import { toMessagesBody } from "../llm/anthropic-request.ts";
import type { ModelMessage, ToolResultPart } from "../llm/chat-model.ts";
import { repairHistory } from "./repair-history.ts";

const user = (text: string): ModelMessage => ({ role: "user", content: [{ type: "text", text }] });
const calling = (...ids: string[]): ModelMessage => ({
  role: "assistant",
  content: ids.map((callId) => ({ type: "tool_call", callId, name: "t", argumentsJson: "{}" })),
});
const result = (callId: string, text = callId): ToolResultPart => ({
  type: "tool_result",
  callId,
  content: [{ type: "text", text }],
  isError: false,
});
const results = (...parts: ToolResultPart[]): ModelMessage => ({ role: "tool", content: parts });

describe("the repair of a history", () => {
  test("leaves a sound one as it is", () => {
    const sound = [
      user("a"),
      calling("1", "2"),
      results(result("1"), result("2")),
      user("b"),
      calling("3"),
      results(result("3")),
    ];
    assert.deepEqual(repairHistory(sound), { messages: sound, added: 0, dropped: 0 });
    assert.deepEqual(repairHistory([]), { messages: [], added: 0, dropped: 0 });
  });

  test("behaviour 15: gives calls without a result one that says so, in call order", () => {
    const { messages, added, dropped } = repairHistory([
      user("a"),
      calling("1", "2"),
      results(result("2")),
      user("b"),
      calling("3"),
    ]);
    assert.deepEqual([added, dropped], [2, 0]);
    const [first, second] = messages.filter((message) => message.role === "tool");
    assert.deepEqual(
      first?.content.map(({ callId, isError }) => [callId, isError]),
      [
        ["1", true],
        ["2", false],
      ],
    );
    assert.deepEqual(
      second?.content.map(({ callId }) => callId),
      ["3"],
    );
    assert.match(JSON.stringify(second), /result is not known/);
  });

  test("behaviour 15: drops results of no call, second results, and those that come after the next answer", () => {
    const { messages, added, dropped } = repairHistory([
      results(result("0")),
      user("a"),
      calling("1", "2"),
      results(result("1"), result("1", "again"), result("9")),
      calling("3"),
      results(result("2"), result("3")),
    ]);
    assert.deepEqual([added, dropped], [1, 4]);
    const kept = messages.flatMap((message) => (message.role === "tool" ? message.content : []));
    assert.deepEqual(
      kept.map(({ callId, isError }) => [callId, isError]),
      [
        ["1", false],
        ["2", true],
        ["3", false],
      ],
    );
    assert.deepEqual(kept[0]?.content, [{ type: "text", text: "1" }]);
  });

  test("behaviour 15: moves results that come after a message of the user back to their calls", () => {
    const { messages, added, dropped } = repairHistory([user("a"), calling("1"), user("b"), results(result("1"))]);
    assert.deepEqual(messages, [user("a"), calling("1"), results(result("1")), user("b")]);
    assert.deepEqual([added, dropped], [0, 0]);
  });

  test("behaviour 15: of any history is one that the provider accepts, and a second repair finds nothing", () => {
    const id = fc.constantFrom("1", "2", "3", "4");
    const message = fc.oneof(
      fc.constant(user("x")),
      fc.uniqueArray(id, { maxLength: 3 }).map((ids) => results(...ids.map((one) => result(one)))),
      fc.constant<ModelMessage>({ role: "assistant", content: [{ type: "text", text: "said" }] }),
      fc.constant(calling()),
    );
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), fc.array(fc.nat(12), { maxLength: 4 }), (history, places) => {
        // Each call id is used once in a history, as newItemId makes them.
        const broken = [...history];
        for (const [i, place] of places.entries()) {
          broken.splice(Math.min(place, broken.length), 0, calling(String(i + 1)));
        }
        const repaired = repairHistory(broken);
        const again = repairHistory(repaired.messages);
        assert.deepEqual([again.messages, again.added, again.dropped], [repaired.messages, 0, 0]);
        const tools = [{ name: "t", description: "", inputSchema: {} }];
        const messages = [user("first"), ...repaired.messages, user("last")];
        const body = toMessagesBody({ model: "m", system: "", messages, tools, maxTokens: 1 });
        assert.equal(refusal(body, "2026-10-21"), undefined);
      }),
    );
  });
});
