import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { newId } from "#platform/id.ts";
import { maskAccountNumbers } from "./mask-account-numbers.ts";

describe("masking account numbers", () => {
  test("hides all but the last four digits, also beside other scripts, in groups, and in other digits", () => {
    const table: [string, string][] = [
      ["6222021234567890", "**** 7890"],
      ["账号6222021234567890余额", "账号**** 7890余额"],
      ["从6222 0212 3456 7890转到６２２２０２１２３４５６７８９１。", "从**** 7890转到**** ７８９１。"],
      ["口座６２２２-０２１２-３４５６-７８９０へ", "口座**** ７８９０へ"],
      ["DE89370400440532013000", "DE**** 3000"],
      ["DE89 3704 0044 0532 0130 00", "DE**** 3000"],
      ["a6222021234567890b", "a**** 7890b"],
      ["٦٢٢٢٠٢١٢٣٤٥٦٧٨٩٠", "**** ٧٨٩٠"],
      ["123456789", "**** 6789"],
      ["6222–0212—3456－7890　1", "**** 8901"],
    ];
    for (const [text, expected] of table) assert.equal(maskAccountNumbers(text), expected);
  });

  test("leaves amounts, dates, short numbers and ids alone", () => {
    const [transfer, order] = [newId("trf"), newId("ord")];
    const texts = [
      "12345678",
      "1000000.00 USD",
      "2026-11-22T10:30:00.000Z",
      "room 4711",
      transfer,
      `of ${order}.`,
      "**** 7890",
    ];
    for (const text of texts) assert.equal(maskAccountNumbers(text), text);
  });

  test("leaves no nine digits in a row, whatever stands around them, and masks only once", () => {
    const piece = fc.constantFrom(..."6222021234 7890 账 号 - a ＿ １２３４５６７８９ . trf_ x".split(" "), " ");
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        const masked = maskAccountNumbers(pieces.join(""));
        assert.equal(maskAccountNumbers(masked), masked);
        assert.doesNotMatch(masked, /\p{Nd}{9}/u);
      }),
    );
  });
});
