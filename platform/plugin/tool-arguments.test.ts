import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { describeArgumentsCheck } from "./tool-arguments.contract.ts";
import { compileArguments, MAX_DEPTH } from "./tool-arguments.ts";

describeArgumentsCheck("compileArguments", (tool, schema, json) => {
  const checked = compileArguments(tool, schema)(json);
  return "problem" in checked ? { problem: checked.problem } : checked;
});

const schema = {
  type: "object",
  properties: {
    city: { type: "string", default: "Paris" },
    note: { type: ["string", "null"], default: "none" },
    size: { type: "integer", enum: [1, 2, 3] },
    people: {
      type: "array",
      items: {
        type: "object",
        properties: { name: { type: "string" } },
        required: ["name"],
        additionalProperties: false,
      },
    },
    kind: { const: "a/b" },
    tags: { type: "object", additionalProperties: { type: "number" } },
  },
  additionalProperties: false,
};
const check = compileArguments("trip", schema);

function problem(args: unknown): string {
  const checked = check(typeof args === "string" ? args : JSON.stringify(args));
  assert.ok("problem" in checked, JSON.stringify(checked));
  return checked.problem.replace(/^Invalid arguments for the tool "trip": /, "");
}

describe("the arguments of a call", () => {
  test("get defaults for what is left out, and for a null where none is allowed", () => {
    const args = (json: string) => {
      const checked = check(json);
      return "args" in checked ? checked.args : assert.fail(checked.problem);
    };
    assert.deepEqual(args(""), { city: "Paris", note: "none" });
    assert.deepEqual(args(' { "city": null, "note": null } '), { city: "Paris", note: null });
    assert.deepEqual(args('{"city":"Rome","size":2,"tags":{"x":1.5}}'), {
      city: "Rome",
      note: "none",
      size: 2,
      tags: { x: 1.5 },
    });
  });

  test("that do not fit are named with their place and what they must be", () => {
    const table: [unknown, string][] = [
      [{ city: 5 }, 'parameter "city" must be string, got number.'],
      [{ note: 5 }, 'parameter "note" must be string or null, got number.'],
      [{ size: 4 }, 'parameter "size" must be one of 1, 2, 3.'],
      [{ size: null }, 'parameter "size" must be integer, got null; parameter "size" must be one of 1, 2, 3.'],
      [{ people: {} }, 'parameter "people" must be array, got object.'],
      [{ people: [{}] }, 'parameter "people.0.name" is missing, expected string.'],
      [{ people: [{ name: "a" }, { name: [] }] }, 'parameter "people.1.name" must be string, got array.'],
      [{ people: [{ name: "a", age: 5 }] }, 'parameter "people.0.age" is unknown.'],
      [{ kind: "b" }, 'parameter "kind" must be "a/b".'],
      [{ tags: { "a/b~c": "x" } }, 'parameter "tags.a/b~c" must be number, got string.'],
      [{ toString: 1 }, 'parameter "toString" is unknown.'],
      [[], "they must be a JSON object, got array."],
      ["null", "they must be a JSON object, got null."],
      ["{'a':1}", "they are not valid JSON."],
      ['{"city":"x"} extra', "they are not valid JSON."],
    ];
    for (const [args, expected] of table) assert.equal(problem(args), expected);
  });

  test("are read to a depth, wherever brackets stand", () => {
    const nested = (depth: number) => `{"people":${"[".repeat(depth - 1)}${"]".repeat(depth - 1)}}`;
    assert.match(problem(nested(MAX_DEPTH)), /must be object, got array/);
    assert.match(problem(nested(MAX_DEPTH + 1)), /nested more than 64 levels deep/);
    const inText = JSON.stringify({ city: `${'["{\\'.repeat(200)}` });
    assert.ok("args" in check(inText));
    assert.match(problem('{"a":'.repeat(100_000)), /nested more than 64 levels deep/);
    for (const open of ["\\", '\\"', '"', '"\\', "{]"]) {
      assert.match(problem(`{"a":"${open.repeat(500_001 / open.length)}`), /not valid JSON|nested/);
    }
  });

  test("whatever they are, either fit or are explained in short", () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string(), fc.constant("[".repeat(1_000))), (json) => {
        const checked = check(json);
        if ("problem" in checked) assert.ok(checked.problem.length < 1_000);
        else
          assert.deepEqual(
            Object.keys(checked.args).filter((name) => !(name in schema.properties)),
            [],
          );
      }),
    );
  });
});
