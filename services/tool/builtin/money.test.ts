import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ToolError } from "#platform/plugin/tool-error.ts";
import { amountText, minorUnits } from "./money.ts";

describe("an amount of money", () => {
  test("with two decimals is exactly its hundredths, and its text reads back as the amount", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000_000 }), (minor) => {
        const text = amountText(minor);
        assert.match(text, /^\d+\.\d\d$/);
        assert.equal(minorUnits("amount", Number(text)), minor);
      }),
    );
    assert.deepEqual([0, 5, -5, -123456].map(amountText), ["0.00", "0.05", "-0.05", "-1234.56"]);
  });

  test("that is none is refused with what to write", () => {
    const table: [number, RegExp][] = [
      [0, /^Parameter "amount" must be an amount above 0, such as 25\.50\.$/],
      [-0, /above 0/],
      [-5, /above 0/],
      [Number.NaN, /above 0/],
      [Number.POSITIVE_INFINITY, /above 0/],
      [0.001, /two decimals at most/],
      [19.999, /two decimals at most/],
      [1_000_000.01, /at most 1000000\.00/],
      [1e300, /at most/],
    ];
    for (const [amount, message] of table) {
      assert.throws(
        () => minorUnits("amount", amount),
        (error) => error instanceof ToolError && message.test(error.message),
        String(amount),
      );
    }
  });
});
