import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { answered, hidden, said, toolTurn } from "../testing/histories.ts";
import { cutHistory, isWorthCutting, roundsOf } from "./rounds.ts";
import { isSummary, summaryIn, summaryMessage, summaryRequest } from "./summary.ts";

const turn = (n: number) => toolTurn({ tool: "t", callId: `call_${n}` });

describe("a history is cut", () => {
  test("behind an answer and its results, before the next message", () => {
    const [u1, a1, u2, u3, a3] = [said("1"), answered("1"), said("2"), hidden("3"), answered("3")];
    const [t1, t2] = [turn(1), turn(2)];
    assert.deepEqual(roundsOf([]), []);
    assert.deepEqual(roundsOf([u1]), [[u1]]);
    assert.deepEqual(roundsOf([u1, a1, u2, ...t1, ...t2, u3, a3]), [[u1, a1], [u2, ...t1], [...t2], [u3, a3]]);
    assert.deepEqual(roundsOf([u1, ...t1, u2]), [[u1, ...t1], [u2]]);
  });

  test("behaviour 38: so that the original request and the last k turns stay", () => {
    const [u1, a1, u2, a2, u3] = [said("1"), answered("1"), said("2"), answered("2"), said("3")];
    const [t1, t2] = [turn(1), turn(2)];
    const history = [u1, ...t1, a1, u2, ...t2, a2, u3];
    assert.deepEqual(cutHistory(history, 2), { front: [u1], middle: [...t1, a1], tail: [u2, ...t2, a2, u3] });
    assert.deepEqual(cutHistory(history, 1), {
      front: [u1, u2].slice(0, 1),
      middle: [...t1, a1, u2, ...t2],
      tail: [a2, u3],
    });
    assert.deepEqual(cutHistory(history, 0), cutHistory(history, 1));
    assert.deepEqual(cutHistory(history, 4), { front: [], middle: [], tail: history });
    assert.deepEqual(cutHistory(history, 99), { front: [], middle: [], tail: history });
  });

  test("behaviour 38: and the request that is being worked on stays, however many turns that takes", () => {
    const [u1, a1, h, u2] = [said("1"), answered("1"), hidden("note"), said("2")];
    const turns = [1, 2, 3, 4].map(turn);
    const history = [u1, a1, h, u2, ...turns.flat()];
    assert.deepEqual(cutHistory(history, 2), {
      front: [u1, u2],
      middle: [a1, h, ...turns.slice(0, 2).flat()],
      tail: turns.slice(2).flat(),
    });
  });

  test("and of the requests in between none stays", () => {
    const [u1, a1, u2, a2, u3] = [said("1"), answered("1"), said("2"), answered("2"), said("3")];
    const turns = [1, 2].map(turn);
    const { front, middle } = cutHistory([u1, a1, u2, a2, u3, ...turns.flat()], 1);
    assert.deepEqual(
      [front, middle],
      [
        [u1, u3],
        [a1, u2, a2, ...turns.slice(0, 1).flat()],
      ],
    );
    assert.deepEqual(cutHistory([], 1), { front: [], middle: [], tail: [] });
  });

  test("where it loses more than a summary", () => {
    const summary = summaryMessage("s", [], "msg_s");
    assert.equal(isWorthCutting([]), false);
    assert.equal(isWorthCutting([summary]), false);
    assert.equal(isWorthCutting([summary, answered("x")]), true);
  });
});

describe("a summary", () => {
  test("behaviour 39: is what is between the tags, or all of an answer without tags", () => {
    assert.equal(summaryIn("Sure.\n<summary>\n a <b> c \n</summary> Bye"), "a <b> c");
    assert.equal(summaryIn(" plain "), "plain");
    assert.equal(summaryIn("<summary>never closed"), "never closed");
    assert.equal(summaryIn("</summary> x <summary>y"), "y");
    assert.equal(summaryIn("<summary>a</summary> and </summary>"), "a</summary> and");
    assert.equal(summaryIn("<summary> </summary>"), "");
  });

  test("behaviour 38: is a hidden message that ends with the open todos", () => {
    const message = summaryMessage("All of it.", ["Call Ann", "Pay"], "msg_9");
    assert.deepEqual([message.role, message.id, message.hidden], ["user", "msg_9", true]);
    const [part] = message.content;
    assert.ok(part?.type === "text");
    assert.match(
      part.text,
      /^<conversation_summary>\n.*\n\nAll of it\.\n\n.*open:\n- Call Ann\n- Pay\n<\/conversation_summary>$/,
    );
    const without = summaryMessage("All of it.", [], "msg_9").content[0];
    assert.ok(without?.type === "text" && without.text.endsWith("All of it.\n</conversation_summary>"));
  });

  test("is told from what others say", () => {
    const message = summaryMessage("s", [], "msg_1");
    assert.equal(isSummary(message), true);
    assert.equal(isSummary({ role: "user", content: message.content }), false);
    assert.equal(isSummary(hidden("note")), false);
    assert.equal(isSummary({ role: "user", hidden: true, content: [] }), false);
    assert.equal(
      isSummary({ role: "user", hidden: true, content: [{ type: "image", mediaType: "image/png", data: "" }] }),
      false,
    );
    assert.equal(isSummary(answered("<conversation_summary>")), false);
  });

  test("is asked for with the configured prompt, between tags and without tools", () => {
    const { role, content, hidden: isHidden } = summaryRequest("  Keep the numbers. ");
    assert.equal(role, "user");
    assert.ok(isHidden && content[0]?.type === "text");
    assert.match(content[0].text, /^Keep the numbers\.\n\n/);
    assert.match(content[0].text, /Do not call any tools.*between <summary> and <\/summary>\.$/s);
    assert.match(content[0].text, /whatever it does not say is lost/);
    assert.match(content[0].text, /earlier summary/);
    assert.match(content[0].text, /language of the conversation/);
  });
});
