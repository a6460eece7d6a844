import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ModelError } from "../llm/model-error.ts";
import { call, finish, type Script, text, thinking } from "../llm/testing/scripted-model.ts";
import type { EngineEvent } from "./events.ts";
import { outline, type PlayOptions, play } from "./testing/play.ts";

const of = <T extends EngineEvent["type"]>(events: EngineEvent[], type: T) =>
  events.filter((event): event is Extract<EngineEvent, { type: T }> => event.type === type);
const signed: PlayOptions = { finalAnswer: async (said) => `${said} – yours` };
const answer = (words: string): Script => [...text(words), finish()];

describe("who has the last word on an answer", () => {
  test("changes what is told, stored and returned; what was shown before is void", async () => {
    const { events, history, result } = await play([[...thinking("Hm."), ...answer("It is done.")]], signed);
    assert.equal(result?.text, "It is done. – yours");
    assert.deepEqual(outline(events), [
      "step_started",
      "reasoning_delta",
      "message_started",
      "text_delta",
      "model_called",
      "reasoning_completed",
      "item_discarded",
      "message_started",
      "text_delta",
      "message_completed",
      "step_completed",
    ]);
    assert.equal(of(events, "item_discarded")[0]?.cause, "rewritten");
    const [first, second] = of(events, "message_started").map(({ itemId }) => itemId);
    assert.notEqual(first, second);
    assert.deepEqual(of(events, "message_completed"), [
      { type: "message_completed", itemId: second, parts: [{ type: "text", text: "It is done. – yours" }] },
    ]);
    assert.deepEqual(
      history[1]?.content.map((part) => "text" in part && part.text),
      ["Hm.", "It is done. – yours"],
    );
  });

  test("and who leaves it as it is leaves no trace; neither does one that fails", async () => {
    const plain = await play([answer("It is done.")]);
    for (const finalAnswer of [async (said: string) => said, () => Promise.reject(new Error("away"))]) {
      const { events, history } = await play([answer("It is done.")], { finalAnswer });
      assert.deepEqual([events, history], [plain.events, plain.history]);
    }
  });

  test("is asked once, and of nothing but the answer", async () => {
    const asked: string[] = [];
    const { history } = await play([[...text("I look."), ...call("t"), finish("tool_use")], answer("Done.")], {
      tools: { t: {} },
      async finalAnswer(said) {
        asked.push(said);
        return said.toUpperCase();
      },
    });
    assert.deepEqual(asked, ["Done."]);
    assert.deepEqual(
      history.flatMap(({ content }) => content.map((part) => (part.type === "text" ? part.text : part.type))),
      ["Go", "I look.", "tool_call", "tool_result", "DONE."],
    );
  });

  test("may say something where the model said nothing, and nothing where it said something", async () => {
    const spoken = await play([[finish()]], { finalAnswer: async () => "Ask me anything." });
    assert.deepEqual(of(spoken.events, "item_discarded"), []);
    assert.deepEqual(spoken.history.at(-1)?.content, [{ type: "text", text: "Ask me anything." }]);
    const silent = await play([answer("A secret.")], { finalAnswer: async () => "" });
    assert.deepEqual([silent.result?.text, silent.history.length], ["", 1]);
    assert.equal(of(silent.events, "message_completed").length, 0);
    assert.ok(!JSON.stringify(of(silent.events, "step_completed")).includes("secret"));
  });

  test("has it on what the done tool says, and on an answer of last resort", async () => {
    const done = await play([[...call("done", { message: "All done." }), finish("tool_use")]], {
      ...signed,
      requireDoneTool: true,
    });
    assert.deepEqual([done.result?.outcome, done.result?.text], ["DONE_TOOL", "All done. – yours"]);
    assert.deepEqual(done.history.at(-1)?.content, [{ type: "text", text: "All done. – yours" }]);
    const canned = await play([[new ModelError("server", { retryable: false })]], {
      ...signed,
      lastResort: async () => ({ kind: "canned", text: "Call us." }),
    });
    assert.deepEqual([canned.result?.outcome, canned.result?.text], ["DEGRADED", "Call us. – yours"]);
    assert.deepEqual(canned.history.at(-1)?.content, [{ type: "text", text: "Call us. – yours" }]);
  });

  test("has it on the whole of an answer in several messages, in what is returned only", async () => {
    const { history, result, events } = await play([[...text("One. "), finish("pause")], answer("Two.")], signed);
    assert.equal(result?.text, "One. Two. – yours");
    assert.deepEqual(of(events, "item_discarded"), []);
    assert.deepEqual(history.at(-1)?.content, [{ type: "text", text: "Two." }]);
  });

  test("voids calls that are not made with the answer that they came with", async () => {
    const { events, result, executed } = await play([[...text("Half"), ...call("t"), finish("length")]], {
      ...signed,
      tools: { t: {} },
    });
    assert.deepEqual([result?.outcome, result?.text, executed], ["LENGTH", "Half – yours", []]);
    assert.equal(of(events, "message_completed").length, 1);
  });

  test("does not hold up a cancel", async () => {
    const abort = new AbortController();
    const { result } = await play([answer("It is done.")], {
      signal: abort.signal,
      finalAnswer() {
        abort.abort(new Error("stop"));
        return new Promise(() => {});
      },
    });
    assert.equal(result?.text, "It is done.");
  });
});
