import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { getOption } from "@bufbuild/protobuf";
import { Validator } from "@seriousme/openapi-schema-validator";
import { http } from "#gen/google/api/annotations_pb.ts";
import { authRule } from "#platform/rpc/method-rules.ts";
import { PUBLIC_SERVICES, publicMethods } from "../public-services.ts";
import { createAliases, DOCUMENT_ALIASES } from "../rest/document-aliases.ts";
import { routesOf } from "../rest/route.ts";
import { CHILD, COLOR, KITCHEN } from "../testing/kitchen.ts";
import { type MethodInit, schema } from "../testing/schema.ts";
import { members } from "./docs-schema.ts";
import { type OpenApiDocument, openApiDocument } from "./document.ts";
import { OVERLAY_PATHS } from "./overlay.ts";
import type { Schema } from "./schema.ts";

const aliases = createAliases(DOCUMENT_ALIASES);
const methods = publicMethods(PUBLIC_SERVICES);
const document = openApiDocument(methods.flatMap(routesOf), aliases, "1");

function operation(verb: string, path: string, of = document): Schema {
  const found = (of.paths[path] as Schema | undefined)?.[verb];
  assert.ok(found, `${verb} ${path}`);
  return found as Schema;
}

function component(name: string, of = document): Schema {
  const found = ((of["components"] as Schema)["schemas"] as Schema)[name];
  assert.ok(found, name);
  return found as Schema;
}

function property(name: string, field: string, of = document): Schema {
  return (component(name, of)["properties"] as Schema)[field] as Schema;
}

function parameters(verb: string, path: string, of = document): string[] {
  return (operation(verb, path, of)["parameters"] as Schema[]).map((one) =>
    one["$ref"] === undefined ? `${one["in"]} ${one["name"]}` : String(one["$ref"]).replace(/^.*\//, ""),
  );
}

function* operations(of: OpenApiDocument): Generator<[path: string, verb: string, operation: Schema]> {
  for (const [path, item] of members(of.paths)) for (const [verb, one] of members(item)) yield [path, verb, one];
}

/** Every `$ref` of the document. */
function refs(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  const own = "$ref" in value && typeof value.$ref === "string" ? [value.$ref] : [];
  return [...own, ...Object.values(value).flatMap(refs)];
}

describe("the OpenAPI document of the public API", () => {
  test("is valid OpenAPI 3.1", async () => {
    const validator = new Validator();
    const { valid, errors } = await validator.validate(structuredClone(document));
    assert.equal(valid, true, JSON.stringify(errors));
    assert.equal(validator.version, "3.1");
  });

  test("has every route of the protos and every page of the gateway, and nothing else", () => {
    const unnamed = (path: string) => path.replaceAll(/\{[^}]*\}/g, "{}");
    const expected = methods.flatMap((method) => {
      const rule = getOption(method, http);
      return [rule, ...rule.additionalBindings].map(
        ({ pattern }) => `${pattern.case} ${unnamed(String(pattern.value))} ${method.parent.typeName}/${method.name}`,
      );
    });
    const found = [...operations(document)].map(
      ([path, verb, one]) => `${verb} ${unnamed(path)} ${one["x-rpc"] ?? ""}`,
    );
    assert.deepEqual(found.filter((line) => !line.endsWith(" ")).sort(), expected.sort());
    assert.deepEqual(
      found.filter((line) => line.endsWith(" ")).sort(),
      Object.keys(OVERLAY_PATHS)
        .map((path) => `get ${path} `)
        .sort(),
    );
  });

  test("asks for exactly the scopes that the descriptors ask for, any of them, by either scheme", () => {
    for (const [path, verb, one] of operations(document)) {
      const security = one["security"] as Record<string, string[]>[];
      const method = methods.find(({ parent, name }) => `${parent.typeName}/${name}` === one["x-rpc"]);
      const scopes = method === undefined ? [] : authRule(method).anyScope;
      for (const scheme of ["bearer", "apiKey"]) {
        const alternatives = security.flatMap((alternative) => (scheme in alternative ? [alternative[scheme]] : []));
        assert.deepEqual(
          alternatives,
          scopes.map((scope) => [scope]),
          `${verb} ${path}`,
        );
      }
      for (const scope of scopes) assert.match(String(one["description"]), new RegExp(`\`${scope}\``));
    }
  });

  test("refers to what it has, and has nothing that nobody refers to", () => {
    const used = new Set(refs(document));
    for (const [kind, entries] of members(document["components"])) {
      for (const [name] of members(entries)) {
        if (kind !== "securitySchemes") assert.ok(used.delete(`#/components/${kind}/${name}`), `${kind}/${name}`);
      }
    }
    assert.deepEqual([...used], []);
  });

  test("tells every operation, parameter and field apart and describes it", () => {
    const ids = [...operations(document)].map(([, , one]) => String(one["operationId"]));
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(
      ids.every((id) => /^[A-Za-z][A-Za-z0-9_]*$/.test(id)),
      ids.join(),
    );
    for (const [path, verb, one] of operations(document)) assert.ok(one["summary"], `${verb} ${path}`);
    for (const name of ["Session", "AgentInput", "ChatRequest", "Run", "UsageSummary"]) {
      for (const [field, one] of members(component(name)["properties"]))
        assert.ok(one["description"], `${name}.${field}`);
    }
  });
});

describe("an operation", () => {
  test("has its parameters where the request has them", () => {
    assert.deepEqual(parameters("post", "/api/v1/chat"), ["IdempotencyKey", "RequestTimeout"]);
    assert.deepEqual(parameters("get", "/api/v1/sessions"), [
      "query page_size",
      "query page_token",
      "query skip",
      "query end_user_id",
      "query agent_id",
      "query limit",
      "RequestTimeout",
    ]);
    assert.deepEqual(parameters("get", "/api/v1/runs/{run_id}/events:stream"), [
      "path run_id",
      "query after_seq",
      "query live_only",
      "query types",
      "query omit_transient",
      "LastEventId",
      "RequestTimeout",
    ]);
    assert.deepEqual(parameters("patch", "/api/v1/tenants/{tenant_id}/agents/{agent_id}"), [
      "path tenant_id",
      "path agent_id",
      "query update_mask",
      "query request_id",
      "IdempotencyKey",
      "IfMatch",
      "RequestTimeout",
    ]);
    assert.ok(parameters("delete", "/api/v1/sessions/{session_id}").includes("IfMatch"));
    assert.ok(!parameters("delete", "/api/v1/api-keys/{api_key_id}").includes("IfMatch"));
  });

  test("leaves the fields of its path out of its body", () => {
    const { requestBody } = operation("post", "/api/v1/runs/{run_id}:cancel") as { requestBody: Schema };
    const { schema: body } = (requestBody["content"] as Schema)["application/json"] as { schema: Schema };
    assert.deepEqual(Object.keys(body["properties"] as Schema), ["request_id"]);
    assert.equal(body["additionalProperties"], false);
    assert.equal(requestBody["required"], false);
  });

  test("answers with the resource, its etag and the errors that fit", () => {
    const { responses } = operation("patch", "/api/v1/sessions/{session_id}") as { responses: Schema };
    assert.deepEqual(Object.keys(responses), [
      ...["200", "400", "401", "403", "404", "409", "413", "415", "429", "503", "504"],
      "default",
    ]);
    const answer = responses["200"] as Record<string, Schema>;
    assert.ok(answer["headers"]?.["ETag"]);
    assert.deepEqual(answer["content"]?.["application/json"], { schema: { $ref: "#/components/schemas/Session" } });
    const list = operation("get", "/api/v1/tools")["responses"] as Schema;
    for (const status of ["404", "409", "413", "415"]) assert.equal(list[status], undefined, status);
  });

  test("that streams answers with the events of its oneof", () => {
    const { responses } = operation("post", "/api/v1/chat/stream") as { responses: Schema };
    const { content, description } = responses["200"] as Record<string, Schema>;
    assert.deepEqual(content, { "text/event-stream": { schema: { $ref: "#/components/schemas/ChatStreamEvent" } } });
    assert.match(String(description), /`text`, `tool_call`.*`final`, `error`/);
    const call = component("ChatStreamEventToolCall");
    const fields = ["type", "seq", "tool", "args", "call_id", "client_executed"];
    assert.deepEqual(Object.keys(call["properties"] as Schema), fields);
    assert.deepEqual(component("ChatStreamEventError")["required"], ["type", "code", "reason", "message"]);
  });
});

describe("a schema", () => {
  test("says the limits of buf.validate and the behaviour of fields, for requests", () => {
    const { description: _text, ...message } = property("ChatRequest", "message");
    assert.deepEqual(message, { type: "string", minLength: 1, maxLength: 100_000 });
    assert.deepEqual(component("ChatRequest")["required"], ["message"]);
    assert.equal(property("ChatRequest", "attachments")["maxItems"], 10);
    const { minimum, maximum, type } = property("AgentInput", "temperature");
    assert.deepEqual([minimum, maximum, type], [0, 2, ["number", "null"]]);
    const tools = property("AgentInput", "tools");
    assert.deepEqual(tools["items"], { type: "string", minLength: 1, maxLength: 64 });
    assert.equal(tools["uniqueItems"], true);
    assert.equal(property("AgentInput", "version")["readOnly"], true);
    const labels = property("SessionInput", "labels");
    assert.deepEqual(labels["propertyNames"], { minLength: 1, maxLength: 64 });
    assert.deepEqual(
      [labels["additionalProperties"], labels["maxProperties"]],
      [{ type: "string", maxLength: 256 }, 32],
    );
    assert.equal(property("ImagePartInput", "data")["maxLength"], Math.ceil(5_242_880 / 3) * 4);
    assert.match(String(property("SessionInput", "end_user_id")["description"]), /Cannot be changed\.$/);
  });

  test("shows the document's names beside the fields'", () => {
    assert.deepEqual(property("Agent", "id"), { type: "string", description: "The same as `agent_id`." });
    assert.ok((component("Agent")["required"] as string[]).includes("id"));
    assert.ok(!(component("Agent")["required"] as string[]).includes("created_at"));
    const answer = operation("delete", "/api/v1/sessions/{session_id}")["responses"] as Schema;
    assert.match(JSON.stringify(answer["200"]), /"status":\{"const":"deleted"\}/);
  });

  test("exists for every kind of field", async () => {
    const rules: Partial<MethodInit>[] = [
      { http: { pattern: { case: "post", value: "/a/{string_value}/{child.name}:go" }, body: "*" } as never },
      { http: { pattern: { case: "get", value: "/b/{string_value=x/*/**}" } } as never },
      {
        http: { pattern: { case: "get", value: "/c" } } as never,
        stream: "server",
        sse: { eventOneof: "choice", id: "int64_value" },
      },
    ];
    const { service } = schema({
      messages: { Kitchen: KITCHEN, Child: CHILD },
      enums: { Color: COLOR },
      methods: rules.map((init, index) => ({ name: `Call${index}`, input: "Kitchen", output: "Kitchen", ...init })),
    });
    const made = openApiDocument(
      publicMethods([service]).flatMap(routesOf),
      createAliases({ query: {}, fields: {}, answer: {} }),
      "1",
    );
    const { valid, errors } = await new Validator().validate(structuredClone(made));
    assert.equal(valid, true, JSON.stringify(errors));
    assert.deepEqual(Object.keys(made.paths).slice(0, 3), [
      "/a/{string_value}/{name}:go",
      "/b/x/{string_value}/{string_value_3}",
      "/c",
    ]);
    const kitchen = (field: string) => property("Kitchen", field, made);
    assert.deepEqual(kitchen("int64_value"), { type: "string", format: "int64", pattern: "^-?[0-9]+$" });
    assert.deepEqual(kitchen("uint32_value"), { type: "integer", format: "int64", minimum: 0, maximum: 4_294_967_295 });
    assert.deepEqual(kitchen("bytes_value"), { type: "string", contentEncoding: "base64" });
    assert.deepEqual(kitchen("color"), { $ref: "#/components/schemas/Color" });
    assert.deepEqual(kitchen("children"), { type: "array", items: { $ref: "#/components/schemas/Child" } });
    assert.deepEqual(kitchen("by_flag"), {
      type: "object",
      additionalProperties: { $ref: "#/components/schemas/Child" },
    });
    assert.deepEqual(kitchen("time"), { type: "string", format: "date-time" });
    assert.deepEqual(kitchen("facts"), { type: "object", additionalProperties: true });
    assert.deepEqual(kitchen("nothing"), { type: "null" });
    assert.deepEqual(kitchen("wrapped_long"), { type: "string", format: "int64", pattern: "^-?[0-9]+$" });
    const required = component("Kitchen", made)["required"] as string[];
    assert.ok(required.includes("numbers") && required.includes("string_value") && required.includes("labels"));
    for (const name of ["maybe_text", "child", "choice_text", "time"]) assert.ok(!required.includes(name), name);
    assert.deepEqual(component("Kitchen", made)["allOf"], [
      {
        oneOf: [
          { required: ["choice_text"] },
          { required: ["choice_child"] },
          { not: { anyOf: [{ required: ["choice_text"] }, { required: ["choice_child"] }] } },
        ],
      },
    ]);
    assert.deepEqual(property("ChildInput", "big_size", made)["type"], ["string", "integer", "null"]);
    const query = parameters("get", "/c", made);
    assert.ok(query.includes("query child.name") && query.includes("query child.child.name") === false);
    assert.ok(query.includes("query time") && query.includes("query wrapped_text") && !query.includes("query facts"));
  });
});
