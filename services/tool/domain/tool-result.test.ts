import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { ToolOutput } from "./define-tool.ts";
import { cutText, lengthOf, MAX_IMAGE_BYTES, MAX_IMAGES, resultOf } from "./tool-result.ts";

const image = (bytes: number, mediaType = "image/png") =>
  ({ type: "image", mediaType, data: new Uint8Array(bytes) }) as const;

describe("a tool's result", () => {
  test("is the text, the structured value as JSON, or the parts that the tool returned", () => {
    const text = (of: string) => [{ type: "text", text: of }];
    const whole = { isError: false, truncated: false };
    assert.deepEqual(resultOf("hi", 100), { content: text("hi"), structuredJson: "", ...whole });
    assert.deepEqual(resultOf("", 100), { content: text(""), structuredJson: "", ...whole });
    const structured = { a: [1, null] };
    const json = '{"a":[1,null]}';
    assert.deepEqual(resultOf({ structured }, 100), { content: text(json), structuredJson: json, ...whole });
    assert.deepEqual(resultOf({ structured, text: "x" }, 100), { content: text("x"), structuredJson: json, ...whole });
    const parts = resultOf({ content: [{ type: "text", text: "ab" }, image(3)] }, 100);
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
    for (const output of wrong) assert.throws(() => resultOf(output as ToolOutput, 100), TypeError);
  });

  test("is cut at its limit, over all its texts; a structured value that is too large is left out", () => {
    const { content, truncated } = resultOf(
      { content: ["abc", "def", "ghi"].map((text) => ({ type: "text", text })) },
      5,
    );
    assert.deepEqual(content, [
      { type: "text", text: "abc" },
      { type: "text", text: "de" },
    ]);
    assert.equal(truncated, true);
    const large = resultOf({ structured: ["é".repeat(10)], text: "ok" }, 20);
    assert.deepEqual(large, {
      content: [{ type: "text", text: "ok" }],
      structuredJson: "",
      isError: false,
      truncated: true,
    });
  });

  test("has a limited number of images of a limited size", () => {
    const large = resultOf({ content: [image(MAX_IMAGE_BYTES + 1), image(2)] }, 10);
    assert.deepEqual([large.content.length, large.truncated], [1, true]);
    const many = resultOf({ content: Array.from({ length: MAX_IMAGES + 1 }, () => image(1)) }, 10);
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
