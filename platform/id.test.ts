import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { v7 } from "uuid";
import { encode, idPattern, isId, newId } from "./id.ts";

const sixteenBytes = fc.uint8Array({ minLength: 16, maxLength: 16 });

describe("ids", () => {
  test("an id is its prefix, an underscore and 26 characters of lower-case Crockford base32", () => {
    const id = newId("run");
    assert.match(id, /^run_[0-9a-z]{26}$/);
    assert.match(id, idPattern("run"));
    assert.doesNotMatch(id.slice(4), /[ilou]/);
  });

  test("ids made one after another sort in that order", () => {
    const ids = Array.from({ length: 5000 }, () => newId("evt"));
    assert.deepEqual([...ids].sort(), ids);
    assert.equal(new Set(ids).size, ids.length);
  });

  test("an id of a later millisecond sorts after any id of an earlier one", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 47 }), fc.integer({ min: 1, max: 2 ** 40 }), (msecs, later) => {
        const a = encode(v7({ msecs }, new Uint8Array(16)));
        const b = encode(v7({ msecs: msecs + later }, new Uint8Array(16)));
        assert.ok(a < b, `${a} should sort before ${b}`);
      }),
    );
  });

  test("the encoding keeps the order of the bytes and maps different bytes to different text", () => {
    fc.assert(
      fc.property(sixteenBytes, sixteenBytes, (a, b) => {
        assert.equal(Math.sign(Buffer.compare(a, b)), encode(a) < encode(b) ? -1 : encode(a) > encode(b) ? 1 : 0);
      }),
    );
  });

  test("the smallest and the largest 16 bytes have the form of an id", () => {
    assert.equal(encode(new Uint8Array(16)), "0".repeat(26));
    assert.equal(encode(new Uint8Array(16).fill(255)), `7${"z".repeat(25)}`);
    assert.throws(() => encode(new Uint8Array(15)), RangeError);
  });

  test("only the whole text in the exact alphabet with the right prefix is an id", () => {
    const id = newId("ses");
    assert.equal(isId("ses", id), true);
    for (const bad of [
      "",
      "ses_",
      `${id}0`,
      id.slice(0, -1),
      id.toUpperCase(),
      ` ${id}`,
      `${id}\n`,
      id.replace("ses_", "run_"),
      undefined,
      7,
      { toString: () => id },
    ]) {
      assert.equal(isId("ses", bad), false, String(bad));
    }
    assert.equal(isId("ses", `ses_8${"0".repeat(25)}`), false, "more than 128 bits");
    assert.equal(isId("ses", `ses_0${"u".repeat(25)}`), false, "u is not in the alphabet");
  });

  test("a prefix that could break out of a pattern or a subject is refused", () => {
    for (const bad of ["", "a", "Run", "run_", "r.n", "r*", "ru\n"]) {
      assert.throws(() => newId(bad), RangeError, bad);
      assert.throws(() => idPattern(bad), RangeError, bad);
    }
  });
});
