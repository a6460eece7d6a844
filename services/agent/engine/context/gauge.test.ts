import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { answered, hidden, said, tokens, toolTurn } from "../testing/histories.ts";
import { estimateContent, estimateFrame, estimateMessage, estimateMessages, estimateText } from "./estimate.ts";
import { contextTokens, Gauge } from "./gauge.ts";

describe("an estimate of tokens", () => {
  test("takes four characters of ASCII, two of other alphabets and one of CJK for a token", () => {
    assert.equal(estimateText(""), 0);
    assert.equal(estimateText("a"), 1);
    assert.equal(estimateText("abcdefgh"), 2);
    assert.equal(estimateText("привет"), 3);
    for (const dense of ["你好", "こん", "한국", "！？", "豈\u2e80", "\u9fff\uac00", "\ud7a3\uffef"]) {
      assert.equal(estimateText(dense), 2, dense);
    }
    for (const edge of ["\u2e80", "\u9fff", "\uac00", "\udfff", "\uf900", "\uffef"]) {
      assert.equal(estimateText(edge.repeat(4)), 4, edge);
    }
    assert.equal(estimateText("\u0080".repeat(4)), 2);
    assert.equal(estimateText("\u2e7f\ufff0"), 1);
    assert.equal(estimateText("\u007f\u0080"), 1);
    assert.equal(estimateText("😀"), 2);
    assert.equal(estimateText(`${"a".repeat(400)}你`), 101);
  });

  test("counts images, calls, results and what a message costs by itself", () => {
    const image = { type: "image", mediaType: "image/png", data: "A".repeat(10_000) } as const;
    assert.equal(estimateContent([image, { type: "text", text: tokens(10) }]), 1_610);
    assert.equal(estimateMessage(said(tokens(10))), 14);
    assert.equal(estimateMessage({ role: "user", content: [image] }), 1_604);
    const [call, result] = toolTurn({ tool: "abcd", callId: "c", output: tokens(7) });
    assert.equal(estimateMessage(call), 4 + 12 + 1 + 1);
    assert.equal(estimateMessage(result), 4 + 12 + 7);
    assert.equal(estimateMessages([call, result]), 41);
    const part = { type: "thinking", text: tokens(3), signature: tokens(9), origin: "anthropic" } as const;
    assert.equal(estimateMessage({ role: "assistant", content: [part] }), 7);
    assert.equal(estimateMessage({ role: "assistant", content: [{ ...part, redacted: true }] }), 13);
  });

  test("measures a message once", () => {
    let reads = 0;
    const message = said("");
    Object.defineProperty(message.content[0], "text", {
      get() {
        reads++;
        return "abcd";
      },
    });
    assert.deepEqual([estimateMessage(message), estimateMessage(message), reads], [5, 5, 1]);
  });

  test("counts system prompt and tools with their schemas", () => {
    assert.equal(estimateFrame(tokens(5), []), 5);
    const tool = { name: "abcd", description: tokens(2), inputSchema: { a: 1 } };
    assert.equal(estimateFrame("", [tool, tool]), 2 * (12 + 1 + 2 + 2));
    let reads = 0;
    const counting = { ...tool, inputSchema: { toJSON: () => ({ reads: ++reads }) } };
    assert.equal(estimateFrame("", [counting, counting]), 2 * (12 + 1 + 2 + 3));
    assert.equal(reads, 1, "a tool is measured once");
  });
});

describe("the gauge", () => {
  const usage = { inputTokens: 2_000, cacheReadTokens: 50_000, cacheWriteTokens: 0, outputTokens: 1_000 };

  test("behaviour 36: a prompt of 52k of which 50k were cached and an answer of 1k are a context of 53k", () => {
    assert.equal(contextTokens(usage), 53_000);
    assert.equal(contextTokens({ ...usage, inputTokens: 500, cacheWriteTokens: 1_500 }), 53_000);
  });

  test("behaviour 37: adds what came since the last call to what that call used", () => {
    const gauge = new Gauge();
    const before = [said("a"), answered("b")];
    gauge.observe(53_000, before, 100);
    const [call, result] = toolTurn({ tool: "abcd", callId: "c", output: tokens(9_000) });
    assert.equal(gauge.estimate(before, 100), 53_000);
    assert.equal(gauge.estimate([...before, call, result], 100), 53_000 + 18 + 9_016);
  });

  test("estimates everything before the first usage, and where a provider reports none", () => {
    const gauge = new Gauge();
    const history = [said(tokens(10)), hidden(tokens(6))];
    assert.equal(gauge.estimate(history, 100), 124);
    gauge.observe(0, history, 100);
    assert.equal(gauge.estimate([...history, said(tokens(1))], 100), 129);
  });

  test("takes off what is gone at the rate at which the estimate was right", () => {
    const gauge = new Gauge();
    const [one, two] = [said(tokens(96)), said(tokens(196))];
    gauge.observe(800, [one, two], 100);
    assert.equal(gauge.estimate([two], 100), 600);
    assert.equal(gauge.estimate([one, two], 0), 600);
    assert.equal(gauge.estimate([said(tokens(6))], 100), 210);
  });
});
