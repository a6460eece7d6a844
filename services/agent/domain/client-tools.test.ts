import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ClientToolSchema } from "#gen/agentmesh/agent/v1/client_tool_pb.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { checkArguments } from "../engine/check-arguments.ts";
import {
  checkCollisions,
  clientToolSpec,
  MAX_SCHEMA_BYTES,
  MAX_SCHEMA_DEPTH,
  parseClientTools,
} from "./client-tools.ts";

const tool = (inputSchema: unknown, name = "t") =>
  create(ClientToolSchema, { name, description: "d", inputSchemaJson: JSON.stringify(inputSchema) });

function fieldsOf(work: () => unknown): string[] {
  try {
    work();
    return [];
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.reason, "FIELD_INVALID");
    return error.violations.map(({ field }) => field);
  }
}

/** A schema that is nested so deep. */
function nested(depth: number): object {
  let schema: object = { type: "string" };
  // An object's schema and its properties are two levels.
  for (let i = 0; i < (depth - 2) / 2; i++) schema = { type: "object", properties: { a: schema } };
  return schema;
}

describe("the caller's tools", () => {
  test("are taken as they are", () => {
    const [parsed] = parseClientTools([tool({ type: "object", properties: { a: { type: "integer" } } })]);
    assert.deepEqual(parsed, {
      name: "t",
      description: "d",
      inputSchemaJson: '{"type":"object","properties":{"a":{"type":"integer"}}}',
      risk: 0,
    });
  });

  test("are refused by the field that is wrong", () => {
    const object = { type: "object" };
    const cases: [ReturnType<typeof tool>[], string[]][] = [
      [[tool(object, "a b")], ["client_tools[0].name"]],
      [[tool(object, "done")], ["client_tools[0].name"]],
      [[tool(object, "read_tool_output")], ["client_tools[0].name"]],
      [[tool(object), tool(object)], ["client_tools[1].name"]],
      [[tool([])], ["client_tools[0].input_schema_json"]],
      [[tool({ type: "string" })], ["client_tools[0].input_schema_json"]],
      [[tool({ ...object, properties: 1 })], ["client_tools[0].input_schema_json"]],
      [[tool({ ...object, properties: { a: { type: "nothing" } } })], ["client_tools[0].input_schema_json"]],
      [[tool({ ...object, $ref: "https://example.com/schema" })], ["client_tools[0].input_schema_json"]],
      [[tool({ ...object, $async: true })], ["client_tools[0].input_schema_json"]],
      [[create(ClientToolSchema, { name: "t", inputSchemaJson: "{" })], ["client_tools[0].input_schema_json"]],
    ];
    for (const [tools, fields] of cases) {
      assert.deepEqual(
        fieldsOf(() => parseClientTools(tools)),
        fields,
        JSON.stringify(tools),
      );
    }
    assert.deepEqual(
      fieldsOf(() => checkCollisions(parseClientTools([tool(object, "look")]), ["pay", "look"])),
      ["client_tools[0].name"],
    );
  });

  test("have schemas of so many bytes and levels", () => {
    const long = (bytes: number) => ({ type: "object", description: "x".repeat(bytes) });
    const each = MAX_SCHEMA_BYTES / 4;
    const many = (extra: number) =>
      ["a", "b", "c", "d"].map((name, i) => {
        const frame = JSON.stringify(long(0)).length;
        return tool(long(each - frame + (i === 0 ? extra : 0)), name);
      });
    assert.deepEqual(
      fieldsOf(() => parseClientTools(many(0))),
      [],
    );
    assert.deepEqual(
      fieldsOf(() => parseClientTools(many(1))),
      ["client_tools"],
    );
    assert.deepEqual(
      fieldsOf(() => parseClientTools([tool(nested(MAX_SCHEMA_DEPTH))])),
      [],
    );
    assert.deepEqual(
      fieldsOf(() => parseClientTools([tool(nested(MAX_SCHEMA_DEPTH + 2))])),
      ["client_tools[0].input_schema_json"],
    );
    assert.deepEqual(
      fieldsOf(() =>
        parseClientTools([
          create(ClientToolSchema, {
            name: "t",
            inputSchemaJson: `{"type":"object","a":${"[".repeat(9_000)}${"]".repeat(9_000)}}`,
          }),
        ]),
      ),
      ["client_tools[0].input_schema_json"],
    );
  });

  test("are checked but for their regular expressions, wherever these stand: the model is told them", {
    timeout: 5_000,
  }, () => {
    const slow = "^(a+)+$";
    const schema = {
      type: "object",
      properties: { a: { type: "string", pattern: slow }, b: { $ref: "#/hidden" }, pattern: { type: "integer" } },
      patternProperties: { [slow]: { type: "string" } },
      hidden: { pattern: slow },
    };
    const [parsed] = parseClientTools([tool(schema)]);
    assert.ok(parsed);
    const spec = clientToolSpec(parsed);
    assert.deepEqual(spec.inputSchema, schema);
    const bad = `${"a".repeat(64)}!`;
    const check = (value: unknown) => checkArguments("t", spec.checkedSchema ?? {}, JSON.stringify(value));
    assert.ok("argumentsJson" in check({ a: bad, b: bad, [bad]: 1 }));
    assert.ok("problem" in check({ a: 1 }));
    assert.ok("problem" in check({ pattern: "x" }), "a parameter of that name is one");
  });
});
