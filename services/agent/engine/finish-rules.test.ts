import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type FinishedTurn, FinishRules, type FinishRulesOptions } from "./finish-rules.ts";

const rulesOf = (more: Partial<FinishRulesOptions> = {}) =>
  new FinishRules({
    toolTurns: 0,
    requireDoneTool: false,
    maxIterations: 10,
    maxTextOnlyReplies: 2,
    maxPauses: 2,
    unfinishedWork: undefined,
    ...more,
  });
const turn = (more: Partial<FinishedTurn> = {}): FinishedTurn => ({
  finish: "end_turn",
  text: "Hi",
  calls: 0,
  simplified: false,
  ...more,
});
const reasonsOf = async (finished: FinishedTurn) => {
  const verdict = await rulesOf().judge(finished);
  assert.ok(verdict.next === "end");
  return [verdict.outcome, ...verdict.notices.map(({ reason }) => reason)];
};

describe("finish rules", () => {
  test("a pause is gone on from without a word, and the answer is all of it", async () => {
    const rules = rulesOf();
    assert.deepEqual(await rules.judge(turn({ finish: "pause", text: "One. " })), { next: "model" });
    const verdict = await rules.judge(turn({ text: "Two." }));
    assert.ok(verdict.next === "end" && verdict.text === "One. Two.");
    // The next answer begins anew.
    const again = await rules.judge(turn({ text: "Three." }));
    assert.ok(again.next === "end" && again.text === "Three.");
  });

  test("an answer of white space is as empty as none; a refusal needs no words", async () => {
    assert.deepEqual(await reasonsOf(turn({ text: " \n" })), ["ANSWERED", "EMPTY_ANSWER"]);
    assert.deepEqual(await reasonsOf(turn({ text: "", finish: "length" })), ["LENGTH", "EMPTY_ANSWER"]);
    assert.deepEqual(await reasonsOf(turn({ text: "", finish: "refusal" })), ["REFUSED"]);
  });

  test("the pauses that count are those in a row", async () => {
    const rules = rulesOf();
    const pause = turn({ finish: "pause", text: "" });
    for (let i = 0; i < 3; i++) {
      assert.equal((await rules.judge(pause)).next, "model");
      assert.equal((await rules.judge(pause)).next, "model");
      assert.deepEqual(await rules.judge(turn({ calls: 1, finish: "tool_use" })), { next: "tools" });
    }
    await rules.judge(pause);
    await rules.judge(pause);
    const verdict = await rules.judge(pause);
    assert.ok(verdict.next === "end" && verdict.outcome === "INCOMPLETE");
  });
});
