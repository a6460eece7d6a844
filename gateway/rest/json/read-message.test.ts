import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { create, fromJson, type JsonValue, type Message, toBinary, toJson } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import fc from "fast-check";
import { AppError } from "#platform/rpc/errors.ts";
import { GATEWAY_LIMITS } from "../../limits.ts";
import { CHILD, COLOR, KITCHEN } from "../../testing/kitchen.ts";
import { schema } from "../../testing/schema.ts";
import { Problems } from "../problems.ts";
import { parseJson } from "./parse.ts";
import { type GivenField, readMessage } from "./read-message.ts";

const limits = { maxDepth: GATEWAY_LIMITS.maxJsonDepth, maxNumberLength: GATEWAY_LIMITS.maxNumberLength };
const { message } = schema({ messages: { Kitchen: KITCHEN, Child: CHILD }, enums: { Color: COLOR } });
const Kitchen = message("Kitchen");

function read(text: string, given: GivenField[] = []): Message {
  const problems = new Problems(GATEWAY_LIMITS.maxViolations);
  const root = reflect(Kitchen);
  const options = { problems, given: (field: GivenField) => void given.push(field) };
  readMessage(root, parseJson(text, limits), options, { path: "", fields: [] });
  problems.throwIfAny();
  return root.message;
}

function refusal(text: string): { reason: string; fields: string[]; text: string } {
  try {
    read(text);
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    return { reason: error.reason, fields: error.violations.map(({ field }) => field), text: error.message };
  }
  throw new Error(`${text} was read`);
}

function assertInvalid(text: string, field: string, description: RegExp): void {
  const refused = refusal(text);
  assert.equal(refused.reason, "FIELD_INVALID", text);
  assert.deepEqual(refused.fields, [field], text);
  assert.match(refused.text, description, text);
  assert.doesNotMatch(
    refused.text,
    /test\.v1|google\.|protobuf|cannot decode/,
    "type names and the library's words stay inside",
  );
}

function assertReads(text: string): void {
  const expected = fromJson(Kitchen, JSON.parse(text) as JsonValue);
  assert.deepEqual(Buffer.from(toBinary(Kitchen, read(text))), Buffer.from(toBinary(Kitchen, expected)), text);
}

describe("the reader of JSON messages", () => {
  test("agrees with the library on everything that the library writes, in both spellings", () => {
    const scalars = fc.record(
      {
        // JSON.stringify writes -0 as 0.
        doubleValue: fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
        int32Value: fc.integer(),
        int64Value: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        uint32Value: fc.nat({ max: 2 ** 32 - 1 }),
        uint64Value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        boolValue: fc.boolean(),
        stringValue: fc.string({ unit: "grapheme" }),
        bytesValue: fc.uint8Array(),
        color: fc.constantFrom(0, 1, 2, 7),
        maybeText: fc.string(),
        numbers: fc.array(fc.integer()),
        texts: fc.array(fc.string()),
        labels: fc.dictionary(fc.string(), fc.string()),
        wrappedText: fc.string(),
        wrappedLong: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        time: fc
          .integer({ min: -62_135_596_800, max: 253_402_300_799 })
          .map((seconds) => ({ seconds: BigInt(seconds), nanos: 5 })),
        span: fc.integer({ min: -1_000_000, max: 1_000_000 }).map((seconds) => ({ seconds: BigInt(seconds) })),
        facts: fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.boolean(), fc.integer())),
        choice: fc.constantFrom({ case: "choiceText", value: "x" }, { case: undefined }),
        children: fc.array(fc.record({ name: fc.string(), bigSize: fc.bigInt({ min: 0n, max: 9n }) })),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(scalars, fc.boolean(), (init, useProtoFieldName) => {
        const written = create(Kitchen, init as never) as Message;
        const text = JSON.stringify(toJson(Kitchen, written, { useProtoFieldName }));
        assert.deepEqual(Buffer.from(toBinary(Kitchen, read(text))), Buffer.from(toBinary(Kitchen, written)));
      }),
    );
  });

  test("never throws anything but violations, whatever JSON comes", () => {
    const names = fc.constantFrom(
      ...Kitchen.fields.flatMap(({ name, jsonName }) => [name, jsonName]),
      "nope",
      "__proto__",
    );
    const value = fc.letrec((tie) => ({
      value: fc.oneof(
        { depthSize: "small" },
        fc.string(),
        fc.double({ noNaN: true, noDefaultInfinity: true }),
        fc.bigInt().map((big) => `@${big}@`),
        fc.boolean(),
        fc.constant(null),
        fc.array(tie("value"), { maxLength: 3 }),
        fc.dictionary(fc.oneof(names, fc.string()), tie("value"), { maxKeys: 4 }),
      ),
    })).value;
    fc.assert(
      fc.property(fc.dictionary(names, value, { maxKeys: 6 }), (body) => {
        const text = JSON.stringify(body).replaceAll(/"@(-?\d+)@"/g, "$1");
        try {
          read(text);
        } catch (error) {
          assert.ok(error instanceof AppError, String((error as Error).stack));
          assert.ok(error.violations.length > 0);
        }
      }),
      { numRuns: 3_000 },
    );
  });

  test("reads scalars at their ends", () => {
    assertReads('{"int32_value":-2147483648,"uint32_value":4294967295,"int64_value":"-9223372036854775808"}');
    assertReads(
      '{"uint64_value":"18446744073709551615","float_value":3.4028234663852886e+38,"double_value":"-Infinity"}',
    );
    assertReads(
      '{"double_value":"NaN","float_value":"Infinity","int32_value":1.0,"sint32_value":"12","uint32_value":1e3}',
    );
    assert.equal(
      (read('{"int64_value":9223372036854775807}') as unknown as { int64Value: bigint }).int64Value,
      2n ** 63n - 1n,
    );
    assert.equal(
      (read('{"int64_value":9007199254740993}') as unknown as { int64Value: bigint }).int64Value,
      9007199254740993n,
    );
  });

  test("refuses scalars beyond their ends", () => {
    assertInvalid('{"int32_value":2147483648}', "int32_value", /whole number from -2147483648 to 2147483647/);
    assertInvalid('{"int32_value":1.5}', "int32_value", /whole number/);
    assertInvalid('{"int32_value":""}', "int32_value", /whole number/);
    assertInvalid('{"int32_value":" 1"}', "int32_value", /whole number/);
    assertInvalid('{"uint32_value":-1}', "uint32_value", /whole number from 0 to 4294967295/);
    assertInvalid('{"int64_value":9223372036854775808}', "int64_value", /to 9223372036854775807/);
    assertInvalid('{"uint64_value":"18446744073709551616"}', "uint64_value", /to 18446744073709551615/);
    assertInvalid('{"int64_value":1e300}', "int64_value", /whole number/);
    assertInvalid('{"float_value":1e39}', "float_value", /magnitude/);
    assertInvalid('{"double_value":1e400}', "double_value", /magnitude/);
    assertInvalid('{"double_value":"nan"}', "double_value", /magnitude/);
  });

  test("refuses wrong types and names the path of the field", () => {
    assertInvalid('{"string_value":5}', "string_value", /string_value: must be a string/);
    assertInvalid('{"bool_value":"true"}', "bool_value", /must be true or false/);
    assertInvalid('{"child":[]}', "child", /must be an object/);
    assertInvalid('{"child":{"child":{"name":[]}}}', "child.child.name", /must be a string/);
    assertInvalid('{"children":[{"name":"a"},{"bigSize":true}]}', "children[1].big_size", /whole number/);
    assertInvalid('{"numbers":{}}', "numbers", /must be a list/);
    assertInvalid('{"numbers":[1,null]}', "numbers[1]", /must be a value, not null/);
    assertInvalid('{"labels":[]}', "labels", /must be an object/);
    assertInvalid('{"labels":{"a\\"b":1}}', 'labels["a\\"b"]', /must be a string/);
    assertInvalid('{"by_number":{"x":"1"}}', 'by_number["x"]', /the name must be a whole number/);
    assertInvalid('{"by_flag":{"yes":{}}}', 'by_flag["yes"]', /the name must be true or false/);
    assertInvalid('{"color":"BLUE"}', "color", /one of COLOR_UNSPECIFIED, COLOR_RED, COLOR_GREEN/);
    assertInvalid('{"color":1.5}', "color", /one of/);
    assertInvalid('{"time":"yesterday"}', "time", /a time such as/);
    assertInvalid('{"time":5}', "time", /a time such as/);
    assertInvalid('{"span":"5"}', "span", /a duration/);
    assertInvalid('{"facts":"x"}', "facts", /must be an object/);
    assertInvalid('{"facts":{"a":1e999}}', "facts", /must be an object/);
    assertInvalid('{"mask":["a"]}', "mask", /field names separated by commas/);
    assertInvalid('{"any":{"@type":"x"}}', "any", /cannot be given over REST/);
    assertInvalid("[]", "body", /must be an object/);
    assertInvalid("null", "body", /must be an object/);
  });

  test("takes base64 of both alphabets, with and without padding, and nothing else", () => {
    for (const text of ["_-8=", "/+8=", "_-8", "/+8"]) {
      const { bytesValue } = read(`{"bytes_value":"${text}"}`) as unknown as { bytesValue: Uint8Array };
      assert.deepEqual([...bytesValue], [0xff, 0xef]);
    }
    for (const text of ["a", "ab=", "a b=", "ab===", "=", "ä"]) {
      assertInvalid(`{"bytes_value":"${text}"}`, "bytes_value", /base64/);
    }
  });

  test("refuses unknown names with their path", () => {
    const { reason, fields } = refusal('{"child":{"nmae":"x"},"__proto__":{},"stringvalue":""}');
    assert.equal(reason, "FIELD_UNKNOWN");
    assert.deepEqual(fields, ["child.nmae", "__proto__", "stringvalue"]);
  });

  test("refuses a field that is given in both spellings, and two members of a oneof", () => {
    assert.deepEqual(refusal('{"string_value":"a","stringValue":"a"}').reason, "FIELD_CONFLICT");
    const { reason, fields } = refusal('{"choice_text":"a","choice_child":{}}');
    assert.equal(reason, "FIELD_CONFLICT");
    assert.deepEqual(fields, ["choice_child"]);
  });

  test("null means not given, except where null is a value", () => {
    assertReads('{"int32_value":null,"child":null,"numbers":null,"labels":null,"maybe_text":null,"time":null}');
    assertReads('{"anything":null,"nothing":null}');
    assertReads('{"anything":{"a":[null]},"list":[null,1]}');
    assertReads('{"choice_text":null,"choice_child":{"name":"x"}}');
  });

  test("masks are taken in both spellings and kept in snake_case", () => {
    const { mask } = read('{"mask":"displayName,child.big_size,labels"}') as unknown as { mask: { paths: string[] } };
    assert.deepEqual(mask.paths, ["display_name", "child.big_size", "labels"]);
  });

  test("a map with the name __proto__ has that entry and no other effect", () => {
    const { labels } = read('{"labels":{"__proto__":"x"},"facts":{"__proto__":{"a":1}}}') as unknown as {
      labels: Record<string, string>;
    };
    assert.deepEqual(Object.entries(labels), [["__proto__", "x"]]);
    assert.equal(Object.getPrototypeOf({}), Object.prototype);
  });

  test("lists at most as many violations as the limit, and cuts long names", () => {
    const many = JSON.stringify(Object.fromEntries(Array.from({ length: 100 }, (_unused, index) => [`x${index}`, 1])));
    assert.equal(refusal(many).fields.length, GATEWAY_LIMITS.maxViolations);
    assert.ok(refusal(JSON.stringify({ ["y".repeat(100_000)]: 1 })).text.length < 300);
  });

  test("tells which fields were given, deepest only, outside of lists and maps", () => {
    const given: GivenField[] = [];
    read(
      '{"child":{"name":"","child":{}},"numbers":[],"labels":{"a":"b"},"children":[{"name":"x"}],"time":null}',
      given,
    );
    assert.deepEqual(
      given.map(({ path, isNull }) => [path, isNull]),
      [
        ["child.name", false],
        ["child.child", false],
        ["numbers", false],
        ["labels", false],
        ["children", false],
        ["time", true],
      ],
    );
  });
});
