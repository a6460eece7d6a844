import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { checkArguments } from "./check-arguments.ts";

const check = (properties: Record<string, unknown>, value: unknown, more: object = {}) =>
  checkArguments(
    "t",
    { type: "object", properties, ...more },
    typeof value === "string" ? value : JSON.stringify(value),
  );
const problem = (properties: Record<string, unknown>, value: unknown, more: object = {}) => {
  const checked = check(properties, value, more);
  assert.ok("problem" in checked, JSON.stringify(checked));
  return checked.problem.replace('Invalid arguments for the tool "t": ', "");
};

describe("the arguments of a call", () => {
  test("that fit come out as the model wrote them", () => {
    const text = '{ "n": 12345678901234567890, "z": 1, "a": 2 }';
    assert.deepEqual(check({ n: { type: "number" } }, text), { argumentsJson: text });
    assert.deepEqual(check({}, ""), { argumentsJson: "{}" });
  });

  test("behaviour 8: that do not fit name the parameter, what it must be, and what it is", () => {
    const string = { type: "string" };
    const cases: [Record<string, unknown>, unknown, object, string][] = [
      [{ a: string }, { a: 1 }, {}, 'parameter "a" must be string, got number.'],
      [{ a: string }, { a: null }, {}, 'parameter "a" must be string, got null.'],
      [{ a: { type: ["string", "null"] } }, { a: [] }, {}, 'parameter "a" must be string or null, got array.'],
      [{ a: string }, {}, { required: ["a"] }, 'parameter "a" is missing, expected string.'],
      [{ a: { enum: ["x", 2] } }, { a: "y" }, {}, 'parameter "a" must be one of "x", 2.'],
      [{ a: { const: "x" } }, { a: "y" }, {}, 'parameter "a" must be "x".'],
      [{}, { b: 1 }, { additionalProperties: false }, 'parameter "b" is unknown.'],
      [{}, { b: 1 }, { unevaluatedProperties: false }, 'parameter "b" is unknown.'],
      [{ a: { type: "integer", minimum: 3 } }, { a: 1 }, {}, 'parameter "a" must be >= 3.'],
      [{ a: { type: "array", items: string } }, { a: ["x", 2] }, {}, 'parameter "a.1" must be string, got number.'],
      [
        { a: { type: "object", properties: { b: string }, required: ["b"] } },
        { a: {} },
        {},
        'parameter "a.b" is missing, expected string.',
      ],
      [{}, {}, { minProperties: 1 }, "the arguments must NOT have fewer than 1 properties."],
    ];
    for (const [properties, value, more, expected] of cases) assert.equal(problem(properties, value, more), expected);
  });

  test("behaviour 8: that are no object say what they are", () => {
    assert.equal(problem({}, "[]"), "they must be a JSON object, got array.");
    assert.equal(problem({}, '"x"'), "they must be a JSON object, got string.");
    assert.equal(problem({}, "{"), "they are not valid JSON.");
    assert.equal(problem({}, `{"a":"${"x".repeat(1024 * 1024)}"}`), "they are larger than 1 MiB.");
    assert.equal(problem({}, "[".repeat(100_000)), "they are not valid JSON.");
  });

  test("behaviour 8: with many problems name the first five", () => {
    const properties = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`p${i}`, { type: "string" }]));
    const value = Object.fromEntries(Object.keys(properties).map((name) => [name, 1]));
    assert.match(problem(properties, value), /"p4" must be string, got number; and 3 more\.$/);
  });

  test("behaviour 28: get defaults for what is left out or null, unless null is allowed", () => {
    const unit = { type: "string", default: "km" };
    assert.deepEqual(check({ unit }, {}), { argumentsJson: '{"unit":"km"}' });
    assert.deepEqual(check({ unit }, { unit: null }), { argumentsJson: '{"unit":"km"}' });
    assert.deepEqual(check({ unit }, { unit: "mi" }), { argumentsJson: '{"unit":"mi"}' });
    for (const nullable of [
      { type: ["string", "null"], default: "km" },
      { enum: ["km", null], default: "km" },
      { type: "string", default: null, nullable: true },
      { default: "km" },
    ]) {
      const checked = check({ unit: nullable }, { unit: null });
      assert.deepEqual(checked, { argumentsJson: '{"unit":null}' });
    }
  });

  test("behaviour 28: get defaults in nested objects and in arrays of objects too", () => {
    const inner = { type: "object", properties: { unit: { type: "string", default: "km" } } };
    const schema = { one: inner, many: { type: "array", items: inner }, free: { type: "object" } };
    const given = { one: { unit: null }, many: [{ unit: null }, {}, { unit: "mi" }], free: { unit: null } };
    assert.deepEqual(check(schema, given), {
      argumentsJson: JSON.stringify({
        one: { unit: "km" },
        many: [{ unit: "km" }, { unit: "km" }, { unit: "mi" }],
        free: { unit: null },
      }),
    });
    assert.match(JSON.stringify(check(schema, { one: null })), /parameter \\"one\\" must be object, got null/);
  });

  test("behaviour 29: are checked with numeric enums, nested objects, arrays of objects, open maps and references", () => {
    const schema = {
      $defs: { point: { type: "object", properties: { x: { type: "number" } }, required: ["x"] } },
      level: { enum: [1, 2, 3] },
      path: { type: "array", items: { $ref: "#/$defs/point" } },
      labels: { type: "object", additionalProperties: { type: "string" } },
      pair: { type: "array", prefixItems: [{ type: "string" }, { type: "number" }] },
    };
    const { $defs, ...properties } = schema;
    const right = { level: 2, path: [{ x: 1 }], labels: { a: "b" }, pair: ["a", 1] };
    assert.ok("argumentsJson" in check(properties, right, { $defs }));
    assert.equal(problem(properties, { path: [{}] }, { $defs }), 'parameter "path.0.x" is missing, expected number.');
    assert.equal(
      problem(properties, { labels: { a: 1 } }, { $defs }),
      'parameter "labels.a" must be string, got number.',
    );
    assert.equal(
      problem(properties, { pair: ["a", "b"] }, { $defs }),
      'parameter "pair.1" must be number, got string.',
    );
  });

  test("for a tool whose schema cannot be used are refused without a word about why", () => {
    for (const schema of [
      { type: "object", properties: { a: { $ref: "http://127.0.0.1/x.json" } } },
      { type: "object", properties: { a: { type: "nonsense" } } },
      { type: "object", properties: { a: { pattern: "(" } } },
      { $async: true, type: "object" },
    ]) {
      for (let i = 0; i < 2; i++) {
        assert.deepEqual(checkArguments("t", schema, '{"a":"x"}'), {
          problem: 'The tool "t" cannot be called: its parameter schema is not valid.',
        });
      }
    }
  });

  test("are checked against their own schema when two schemas have the same $id", () => {
    const schema = (type: string) => ({ $id: "https://example.com/a", type: "object", properties: { a: { type } } });
    assert.ok("argumentsJson" in checkArguments("t", schema("string"), '{"a":"x"}'));
    assert.ok("argumentsJson" in checkArguments("t", schema("number"), '{"a":1}'));
    assert.ok("problem" in checkArguments("t", schema("number"), '{"a":"x"}'));
  });

  test("never make the check throw, whatever they are", () => {
    const schema = { type: "object", properties: { a: { type: "string", default: "x" }, b: { type: "integer" } } };
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        const checked = checkArguments("t", schema, text);
        assert.ok("problem" in checked || typeof JSON.parse(checked.argumentsJson) === "object");
      }),
    );
    assert.ok("argumentsJson" in checkArguments("t", schema, '{"__proto__":{"a":1},"constructor":1}'));
    assert.equal(({} as Record<string, unknown>)["a"], undefined);
  });
});
