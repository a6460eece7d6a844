import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { ToolOutput } from "#platform/plugin/define-tool.ts";
import {
  cutText,
  lengthOf,
  MAX_IMAGE_BYTES,
  MAX_IMAGES,
  MAX_KEPT_BYTES,
  resultOf,
  withPointer,
} from "./tool-result.ts";

const image = (bytes: number, mediaType = "image/png") =>
  ({ type: "image", mediaType, data: new Uint8Array(bytes) }) as const;

describe("a tool's result", () => {
  test("is the text, the structured value as JSON, or the parts that the tool returned", () => {
    const text = (of: string) => [{ type: "text", text: of }];
    const whole = { isError: false, truncated: false };
    assert.deepEqual(resultOf("hi", { maxBytes: 100 }), { content: text("hi"), structuredJson: "", ...whole });
    assert.deepEqual(resultOf("", { maxBytes: 100 }), { content: text(""), structuredJson: "", ...whole });
    const structured = { a: [1, null] };
    const json = '{"a":[1,null]}';
    assert.deepEqual(resultOf({ structured }, { maxBytes: 100 }), {
      content: text(json),
      structuredJson: json,
      ...whole,
    });
    assert.deepEqual(resultOf({ structured, text: "x" }, { maxBytes: 100 }), {
      content: text("x"),
      structuredJson: json,
      ...whole,
    });
    const parts = resultOf({ content: [{ type: "text", text: "ab" }, image(3)] }, { maxBytes: 100 });
    assert.deepEqual(parts.content, [...text("ab"), image(3)]);
    assert.equal(lengthOf(parts), 5);
  });

  test("of a wrong type is refused", () => {
    const circular: Record<string, unknown> = {};
    circular["self"] = circular;
    const wrong: unknown[] = [
      undefined,
      null,
      7,
      Symbol("x"),
      [],
      {},
      new Uint8Array(8),
      { structured: () => {} },
      { structured: 1n },
      { structured: circular },
      { content: [{ type: "video" }] },
      { content: [null] },
      { content: [image(1, "image/svg+xml")] },
      { content: "text" },
    ];
    for (const output of wrong) assert.throws(() => resultOf(output as ToolOutput, { maxBytes: 100 }), TypeError);
  });

  test("is cut at its limit, over all its texts; a structured value that is too large is left out", () => {
    const { content, truncated } = resultOf(
      { content: ["abc", "def", "ghi"].map((text) => ({ type: "text", text })) },
      { maxBytes: 5 },
    );
    assert.deepEqual(content, [
      { type: "text", text: "abc" },
      { type: "text", text: "de" },
    ]);
    assert.equal(truncated, true);
    const large = resultOf({ structured: ["é".repeat(10)], text: "ok" }, { maxBytes: 20 });
    assert.deepEqual(large, {
      content: [{ type: "text", text: "ok" }],
      structuredJson: "",
      isError: false,
      truncated: true,
      whole: { text: JSON.stringify(["é".repeat(10)]), bytes: 24, shown: 0 },
    });
  });

  test("that is cut keeps its whole text, and so does one that is to be kept; others do not", () => {
    const parts = { content: ["abc", "def", "", "ghi"].map((text) => ({ type: "text", text }) as const) };
    const whole = { text: "abc\ndef\n\nghi", bytes: 12 };
    assert.deepEqual(resultOf(parts, { maxBytes: 5 }).whole, { ...whole, shown: 6 });
    assert.deepEqual(resultOf(parts, { maxBytes: 100, keep: true }).whole, { ...whole, shown: 12 });
    assert.equal(resultOf(parts, { maxBytes: 9 }).whole, undefined);
    const cut = resultOf({ content: ["a😀", "b"].map((text) => ({ type: "text", text })) }, { maxBytes: 4 });
    assert.deepEqual(cut.content, [{ type: "text", text: "a" }]);
    assert.deepEqual(cut.whole, { text: "a😀\nb", bytes: 7, shown: 1 });
  });

  test("keeps 4 MiB of what is larger, at a whole character, and knows how much there was", () => {
    const { whole } = resultOf("é".repeat(25 * 1024 * 1024), { maxBytes: 10 });
    assert.equal(Buffer.byteLength(whole?.text ?? ""), MAX_KEPT_BYTES);
    assert.deepEqual([whole?.bytes, whole?.shown], [50 * 1024 * 1024, 10]);
    const many = resultOf(
      { content: Array.from({ length: 3 }, () => ({ type: "text", text: "x".repeat(2 * 1024 * 1024) })) },
      { maxBytes: 10 },
    ).whole;
    assert.deepEqual([many?.text.length, many?.bytes], [MAX_KEPT_BYTES, 6 * 1024 * 1024 + 2]);
  });

  test("behaviour 30: says what is not shown and how to read it, where it was kept", () => {
    const said = (output: ToolOutput, maxBytes: number) =>
      withPointer(resultOf(output, { maxBytes }), "call_1").content;
    assert.deepEqual(said("abcdef", 4), [
      { type: "text", text: "abcd" },
      {
        type: "text",
        text: '[Shown: the first 4 of 6 bytes. Read on with read_tool_output: call_id "call_1", offset 4.]',
      },
    ]);
    assert.match(
      JSON.stringify(said("x".repeat(MAX_KEPT_BYTES + 1), 4)),
      /first 4 of 4194305 bytes\. The first 4194304 bytes were kept\./,
    );
    assert.match(
      JSON.stringify(said({ structured: ["x".repeat(20)], text: "ok" }, 4)),
      /"ok".*Not shown: a structured result of 24 bytes\..*offset 0\./,
    );
    assert.deepEqual(said("abcd", 4), [{ type: "text", text: "abcd" }]);
    assert.equal(said({ content: [image(MAX_IMAGE_BYTES + 1)] }, 4).length, 0);
  });

  test("may hand the conversation to people, with a reason and a priority", () => {
    const asked = { reason: "angry", priority: "high" } as const;
    assert.deepEqual(resultOf({ structured: {}, escalation: asked }, { maxBytes: 9 }).escalation, asked);
    const long = { reason: "x".repeat(5_000), priority: "low" } as const;
    assert.equal(resultOf({ content: [], escalation: long }, { maxBytes: 9 }).escalation?.reason.length, 1_000);
    for (const wrong of [{ reason: "x" }, { priority: "low" }, { reason: "x", priority: "urgent" }, null]) {
      const output = { structured: {}, escalation: wrong } as unknown as ToolOutput;
      assert.throws(() => resultOf(output, { maxBytes: 9 }), TypeError);
    }
  });

  test("has a limited number of images of a limited size", () => {
    const large = resultOf({ content: [image(MAX_IMAGE_BYTES + 1), image(2)] }, { maxBytes: 10 });
    assert.deepEqual([large.content.length, large.truncated], [1, true]);
    const many = resultOf({ content: Array.from({ length: MAX_IMAGES + 1 }, () => image(1)) }, { maxBytes: 10 });
    assert.deepEqual([many.content.length, many.truncated], [MAX_IMAGES, true]);
  });

  test("any text is cut to a beginning of itself within the limit, at a whole character, as late as possible", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 40 }), fc.integer({ min: 0, max: 60 }), (any, limit) => {
        const original = any.replaceAll("\0", "");
        const { text, bytes, cut } = cutText(original, limit);
        assert.ok(original.startsWith(text) && text.isWellFormed());
        assert.equal(bytes, Buffer.byteLength(text));
        assert.ok(bytes <= limit);
        assert.equal(cut, text.length < original.length);
        const [next = ""] = original.slice(text.length);
        assert.ok(!cut || bytes + Buffer.byteLength(next) > limit);
      }),
    );
  });

  test("holds nothing that could not be sent or stored", () => {
    assert.equal(cutText("a\0b\ud800c\udc00", 100).text, "a\ufffdb\ufffdc\ufffd");
    assert.equal(cutText("😀".slice(0, 1), 100).text, "\ufffd");
    assert.deepEqual(cutText("ab😀", 5), { text: "ab", bytes: 2, cut: true });
    assert.deepEqual(cutText("ab😀", 6), { text: "ab😀", bytes: 6, cut: false });
  });
});
