import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { accountNumbers } from "../adapters/finance.ts";
import { StreamMask } from "./stream-mask.ts";

function streamed(pieces: readonly string[]): { shown: string; deltas: number } {
  const stream = new StreamMask(accountNumbers);
  let shown = "";
  let deltas = 0;
  const take = (more: { offset: number; text: string }[]) => {
    for (const { offset, text } of more) {
      assert.equal(offset, Buffer.byteLength(shown));
      shown += text;
      deltas++;
    }
  };
  for (const piece of pieces) take(stream.feed(piece));
  take(stream.end());
  return { shown, deltas };
}

describe("a text that is masked while it is streamed", () => {
  test("is the mask of the whole, wherever it was cut", () => {
    const part = fc.constantFrom(
      "6222",
      "0212",
      "7",
      "٣٤٥٦",
      "𝟘𝟙",
      " ",
      "-",
      "\u00b7",
      "\u3000",
      "a",
      "run_",
      "01m82qs0wae1qs9nxc0ebg7hxb",
      "A",
      "DE89",
      "号",
      ".",
      ",",
      "\n",
      "_",
      "word ",
      "😀",
      "12345678901234567890",
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 30 }), fc.array(fc.nat(4), { maxLength: 60 }), (parts, lengths) => {
        const text = parts.join("");
        const units = [...text];
        const pieces: string[] = [];
        for (const length of lengths) pieces.push(units.splice(0, length).join(""));
        pieces.push(units.join(""));
        assert.equal(streamed(pieces).shown, accountNumbers.mask(text));
      }),
      { numRuns: 2_000 },
    );
  });

  test("goes on being shown while it comes", () => {
    const words = "You have 3 accounts, and all of them are fine. ".repeat(20).split(/(?<= )/);
    assert.ok(streamed(words).deltas > words.length / 2);
  });
});
