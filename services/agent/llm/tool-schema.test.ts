import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { chatRefusal } from "#platform/testing/model-server/check-chat-request.ts";
import type { ModelRequest } from "./chat-model.ts";
import { toCompletionsBody } from "./openai-request.ts";
import { toolSchema } from "./tool-schema.ts";

const request: ModelRequest = {
  model: "gpt-6-sol",
  system: "",
  messages: [{ role: "user", content: [{ type: "text", text: "x" }] }],
  tools: [],
  maxTokens: 10,
};

describe("a tool's schema for a provider", () => {
  test("behaviour 29: numeric enums, nested objects, arrays of objects and open maps stay as they are", () => {
    const schema = {
      type: "object",
      properties: {
        level: { type: "integer", enum: [1, 2, 3] },
        nested: { type: "object", properties: { deep: { anyOf: [{ type: "string" }, { type: "null" }] } } },
        list: { type: "array", items: { type: "object", properties: { a: { const: 1 } }, required: ["a"] } },
        map: { type: "object", additionalProperties: { type: "number" } },
        ref: { $ref: "#/$defs/point" },
      },
      required: ["level"],
      additionalProperties: false,
      $defs: { point: { type: "object", properties: { x: { type: "number" } } } },
    };
    assert.deepEqual(toolSchema(schema), schema);
  });

  test("behaviour 29: what providers refuse at the top level becomes properties", () => {
    const schema = {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      $id: "urn:x",
      properties: { kind: { type: "string" } },
      required: ["kind"],
      allOf: [{ properties: { a: { type: "number" } }, required: ["a"] }],
      oneOf: [
        { properties: { id: { type: "string" }, both: {} }, required: ["id", "both"] },
        { properties: { name: { type: "string" }, kind: { const: "n" } }, required: ["name", "both"] },
      ],
      not: { required: ["secret"] },
    };
    assert.deepEqual(toolSchema(schema), {
      type: "object",
      properties: {
        kind: { type: "string" },
        a: { type: "number" },
        id: { type: "string" },
        both: {},
        name: { type: "string" },
      },
      required: ["kind", "both", "a"],
    });
    assert.ok("oneOf" in schema);
  });

  test("a schema that says nothing is an object without properties", () => {
    for (const schema of [
      {},
      { type: "object" },
      { type: ["object", "null"], properties: [], required: "x", allOf: 7 },
    ]) {
      assert.deepEqual(toolSchema(schema), { type: "object", properties: {} });
    }
  });

  test("behaviour 29: no schema at all makes a request that a provider refuses", () => {
    const keyword = fc.constantFrom(
      "type",
      "properties",
      "required",
      "anyOf",
      "oneOf",
      "allOf",
      "not",
      "enum",
      "$defs",
    );
    fc.assert(
      fc.property(fc.dictionary(keyword, fc.jsonValue()), (inputSchema) => {
        const tools = [{ name: "t", description: "", inputSchema }];
        const body = toCompletionsBody({ ...request, tools }, { baseUrl: "http://x" });
        assert.equal(chatRefusal(JSON.parse(JSON.stringify(body))), undefined);
      }),
      { numRuns: 300 },
    );
  });
});
