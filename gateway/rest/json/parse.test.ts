import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { GATEWAY_LIMITS } from "../../limits.ts";
import { MalformedJson, parseJson, parseJsonBytes } from "./parse.ts";
import { type Json, JsonNumber, printJson } from "./value.ts";

const limits = { maxDepth: GATEWAY_LIMITS.maxJsonDepth, maxNumberLength: GATEWAY_LIMITS.maxNumberLength };
const parse = (text: string) => parseJson(text, limits);

function plain(json: Json): unknown {
  if (json instanceof JsonNumber) return Number(json.text);
  if (json instanceof Map) return Object.fromEntries([...json].map(([name, value]) => [name, plain(value)]));
  return Array.isArray(json) ? json.map(plain) : json;
}

function problemOf(text: string | Uint8Array): string {
  try {
    typeof text === "string" ? parse(text) : parseJsonBytes(text, limits);
  } catch (error) {
    assert.ok(error instanceof MalformedJson, String(error));
    return error.message;
  }
  throw new Error(`${String(text).slice(0, 100)} was read`);
}

describe("the JSON reader", () => {
  test("reads what JSON.parse reads, and gets the same", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 8 }), fc.constantFrom(0, 2, "\t"), (text, indent) => {
        const value: unknown = JSON.parse(text);
        const shown = JSON.stringify(value, null, indent);
        // -0 is written as 0 by JSON.stringify.
        assert.deepEqual(plain(parse(shown)), JSON.parse(shown));
      }),
    );
  });

  test("refuses every text that JSON.parse refuses, and never with another error", () => {
    const damaged = fc
      .tuple(fc.json({ maxDepth: 4 }), fc.nat(), fc.nat(), fc.string({ maxLength: 3 }))
      .map(([text, at, cut, insert]) => {
        const begin = at % (text.length + 1);
        return text.slice(0, begin) + insert + text.slice(begin + (cut % 3));
      });
    fc.assert(
      fc.property(damaged, (text) => {
        let valid = true;
        try {
          JSON.parse(text);
        } catch {
          valid = false;
        }
        if (!valid) assert.notEqual(problemOf(text), "");
        else assert.ok(isReadOrDuplicate(text));
      }),
      { numRuns: 2_000 },
    );
  });

  test("keeps every digit of a number when it is printed again", () => {
    for (const text of ["9007199254740993", "-0", "1e400", "0.1000", "123456789012345678901234567890"]) {
      assert.equal(printJson(parse(`{"a":[${text}]}`)), `{"a":[${text}]}`);
    }
  });

  test("says what is wrong and where, and quotes nothing", () => {
    assert.equal(problemOf('{"a": 1,}'), "a name in double quotes is expected, at line 1, column 9");
    assert.equal(problemOf('{\n  "a": tru\n}'), "a value is expected, at line 2, column 8");
    assert.equal(problemOf('{"a" 1}'), "':' is expected, at line 1, column 6");
    assert.equal(problemOf("[1 2]"), "',' or ']' is expected, at line 1, column 4");
    assert.equal(problemOf("{} x"), "something follows the value, at line 1, column 4");
    assert.equal(problemOf('{"a": "b'), "a string has no end, at the end (line 1, column 9)");
    assert.equal(problemOf('{"a":'), "it ends too early, at the end (line 1, column 6)");
    assert.equal(problemOf('"\\x"'), "no such escape in a string, at line 1, column 2");
    assert.equal(problemOf('"\\u12"'), "four hexadecimal digits are expected, at line 1, column 4");
    assert.equal(problemOf('"a\nb"'), "a control character must be escaped, at line 1, column 3");
    assert.equal(problemOf("01"), "something follows the value, at line 1, column 2");
    assert.equal(problemOf('"\\constructor"'), "no such escape in a string, at line 1, column 2");
  });

  test("refuses a name that occurs twice, also when one of them is escaped", () => {
    assert.equal(problemOf('{"a":1,"a":2}'), "a name occurs twice in one object, at line 1, column 8");
    assert.match(problemOf('{"a":1,"\\u0061":2}'), /occurs twice/);
  });

  test("refuses half of a surrogate pair and takes whole ones", () => {
    for (const text of ['"\\ud83d"', '"\\ude00x"', '"\\ud83dx\\ude00"', '{"\\ud83d":1}']) {
      assert.match(problemOf(text), /surrogate/);
    }
    assert.equal(parse('"\\ud83d\\ude00"'), "😀");
  });

  test("refuses a byte order mark and bytes that are no UTF-8, and says at which byte", () => {
    assert.match(problemOf(Buffer.from('\uFEFF{"a":1}')), /byte order mark, at line 1, column 1/);
    const damaged = Buffer.concat([Buffer.from('{"a":"�é'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')]);
    assert.equal(problemOf(damaged), "it is not valid UTF-8, at byte 11");
  });

  test("reads as deep as the limit and no deeper", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
    parse(nested(limits.maxDepth));
    assert.match(problemOf(nested(limits.maxDepth + 1)), /nested deeper than 64 levels/);
    assert.match(problemOf("[".repeat(1_000_000)), /nested deeper than 64 levels/);
    assert.match(problemOf('{"a":'.repeat(100_000)), /nested deeper/);
  });

  test("refuses numbers of absurd length", () => {
    parse("1".repeat(limits.maxNumberLength));
    assert.match(problemOf("1".repeat(limits.maxNumberLength + 1)), /a number has more than 512 characters/);
  });

  test("__proto__ and constructor are names like any other", () => {
    const value = parse('{"__proto__":{"polluted":true},"constructor":1}') as Map<string, Json>;
    assert.deepEqual([...value.keys()], ["__proto__", "constructor"]);
    assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
  });

  test("reads long strings and long lists", () => {
    const long = "ab\\n".repeat(500_000) + "x".repeat(3_000_000);
    assert.equal((parse(`["${long}"]`) as string[])[0]?.length, 3 * 500_000 + 3_000_000);
    assert.equal((parse(`[${"1,".repeat(500_000)}1]`) as Json[]).length, 500_001);
  });
});

function isReadOrDuplicate(text: string): boolean {
  try {
    parse(text);
    return true;
  } catch (error) {
    return error instanceof MalformedJson && /occurs twice|surrogate|nested|characters/.test(error.message);
  }
}
