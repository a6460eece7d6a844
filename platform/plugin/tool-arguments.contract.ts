import assert from "node:assert/strict";
import { describe, test } from "node:test";

type Schema = Record<string, unknown>;

/** What a check says of arguments: the arguments as they are then, or what is wrong with them. */
export type ArgumentsCheck = (
  tool: string,
  schema: Schema,
  argumentsJson: string,
) => { args: unknown } | { problem: string };

const string = { type: "string" };
const schema: Schema = {
  type: "object",
  properties: {
    city: { type: "string", default: "Paris" },
    note: { type: ["string", "null"], default: "none" },
    mood: { enum: ["good", null], default: "good" },
    any: { default: 1 },
    size: { type: "integer", enum: [1, 2, 3] },
    count: { type: "integer", minimum: 3 },
    people: {
      type: "array",
      items: { type: "object", properties: { name: string }, required: ["name"], additionalProperties: false },
    },
    kind: { const: "a/b" },
    tags: { type: "object", additionalProperties: { type: "number" } },
    id: string,
  },
  additionalProperties: false,
};

/** What both checks of a call's arguments do: the engine's, before a call is asked for, and the tool service's. */
export function describeArgumentsCheck(name: string, check: ArgumentsCheck): void {
  describe(name, () => {
    test("behaviour 28: a default stands in for what is left out, and for a null where none is allowed", () => {
      const standard = { city: "Paris", note: "none", mood: "good", any: 1 };
      const table: [string, object][] = [
        ["", standard],
        ["{}", standard],
        ['{"city":null}', standard],
        ['{"note":null,"mood":null,"any":null}', { ...standard, note: null, mood: null, any: null }],
        ['{"city":"Rome","size":2,"tags":{"x":1.5}}', { ...standard, city: "Rome", size: 2, tags: { x: 1.5 } }],
      ];
      for (const [json, args] of table) assert.deepEqual(check("trip", schema, json), { args }, json);
    });

    test("behaviour 8: what does not fit is named with its place and what it must be", () => {
      const table: [unknown, string][] = [
        [{ city: 5 }, 'parameter "city" must be string, got number.'],
        [{ note: 5 }, 'parameter "note" must be string or null, got number.'],
        [{ size: 4 }, 'parameter "size" must be one of 1, 2, 3.'],
        [{ id: null }, 'parameter "id" must be string, got null.'],
        [{ count: 1 }, 'parameter "count" must be >= 3.'],
        [{ people: {} }, 'parameter "people" must be array, got object.'],
        [{ people: [{}] }, 'parameter "people.0.name" is missing, expected string.'],
        [{ people: [{ name: "a", age: 5 }] }, 'parameter "people.0.age" is unknown.'],
        [{ kind: "b" }, 'parameter "kind" must be "a/b".'],
        [{ tags: { "a/b~c": "x" } }, 'parameter "tags.a/b~c" must be number, got string.'],
        [{ toString: 1 }, 'parameter "toString" is unknown.'],
        [[], "they must be a JSON object, got array."],
        ["null", "they must be a JSON object, got null."],
        ["{'a':1}", "they are not valid JSON."],
        ['{"city":"x"} extra', "they are not valid JSON."],
      ];
      for (const [args, problem] of table) {
        const json = typeof args === "string" ? args : JSON.stringify(args);
        const expected = { problem: `Invalid arguments for the tool "trip": ${problem}` };
        assert.deepEqual(check("trip", schema, json), expected, json);
      }
    });
  });
}
