import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { jsonText } from "./json-text.ts";

describe("JSON text for jsonb", () => {
  test("is the value with what PostgreSQL refuses replaced, and nothing else changed", () => {
    const cleaned = (value: unknown): unknown =>
      JSON.parse(
        JSON.stringify(value, (_, v) => (typeof v === "string" ? v.replaceAll("\0", "\ufffd").toWellFormed() : v)),
      );
    const strings = fc.string({
      unit: fc.constantFrom("\0", "\\", "u", "0", "\ud800", "\udc00", "😀", '"', "a", "\n"),
    });
    fc.assert(
      fc.property(fc.oneof(strings, fc.array(strings), fc.record({ a: strings })), (value) =>
        assert.deepEqual(JSON.parse(jsonText(value)), cleaned(value)),
      ),
      { numRuns: 2000 },
    );
  });

  test("keys are cleaned too, and nothing at all is null", () => {
    assert.equal(jsonText({ "\0": 1 }), '{"\\ufffd":1}');
    assert.equal(jsonText(undefined), "null");
  });
});
