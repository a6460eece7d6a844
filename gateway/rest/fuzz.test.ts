import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import fc from "fast-check";
import { PUBLIC_SERVICES, publicMethods } from "../public-services.ts";
import { openTestGateway, type TestGateway } from "../testing/test-gateway.ts";
import { type Route, routesOf } from "./route.ts";

// Whatever comes to the routes of the product, behind which are routers with the services' own validation, is answered
// with a status below 500 and, when it is an error, in the one form of errors.

let edge: TestGateway;

before(async () => {
  edge = await openTestGateway({
    services: PUBLIC_SERVICES,
    routes: (router) => {
      for (const method of publicMethods(PUBLIC_SERVICES)) {
        const implementation = method.methodKind === "unary" ? () => ({}) : async function* () {};
        router.rpc(method, implementation as never);
      }
    },
    limits: { maxBodyBytes: 100_000 },
  });
});
after(() => edge[Symbol.asyncDispose]());

const routes: readonly Route[] = publicMethods(PUBLIC_SERVICES).flatMap(routesOf);

const naughty = fc.constantFrom(
  "",
  "null",
  "undefined",
  "__proto__",
  "constructor",
  "\u0000",
  "\u202e",
  "😀",
  "' OR 1=1 --",
  "../../etc/passwd",
  "%2F%00",
  "\r\nx: y",
  "NaN",
  "-0",
  "9223372036854775808",
  "2026-02-30T00:00:00Z",
  "{{7*7}}",
  "a".repeat(5_000),
);

const text = fc.oneof(naughty, fc.string({ unit: "binary" }), fc.string());

const scalar = fc.oneof(
  text.map((value) => JSON.stringify(value)),
  fc.constantFrom("null", "true", "0", "-1", "1.5", "1e400", "-0", "99999999999999999999", "[]", "{}", "[[]]"),
);

/** JSON that often has the shape of the message, and often not. */
function jsonOf(desc: DescMessage, depth: number): fc.Arbitrary<string> {
  const members = desc.fields.map((field) => fc.tuple(fc.constant(field), fieldValue(field, depth)));
  const member = members.length === 0 ? fc.constant(["x", "1"] as const) : fc.oneof(...members).map(named);
  const stray = fc.tuple(text, scalar);
  return fc
    .uniqueArray(fc.oneof({ weight: 9, arbitrary: member }, { weight: 1, arbitrary: stray }), {
      selector: ([name]) => name,
      maxLength: 5,
    })
    .map((pairs) => `{${pairs.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`);
}

function named([field, value]: [DescField, string]): readonly [string, string] {
  return [field.number % 2 === 0 ? field.name : field.jsonName, value];
}

function fieldValue(field: DescField, depth: number): fc.Arbitrary<string> {
  const inner = field.message === undefined || depth > 3 ? scalar : fc.oneof(scalar, jsonOf(field.message, depth + 1));
  if (field.fieldKind === "list")
    return fc.oneof(
      scalar,
      fc.array(inner, { maxLength: 3 }).map((items) => `[${items.join(",")}]`),
    );
  if (field.fieldKind === "map") {
    return fc.oneof(
      scalar,
      fc.tuple(text, inner).map(([name, value]) => `{${JSON.stringify(name)}:${value}}`),
    );
  }
  return inner;
}

function pathOf(route: Route): fc.Arbitrary<string> {
  const segments = route.template.segments.map((segment) =>
    segment.kind === "literal"
      ? fc.constant(segment.value)
      : fc.oneof(
          { weight: 4, arbitrary: text.map((value) => encodeURIComponent(value.toWellFormed())) },
          { weight: 1, arbitrary: fc.constant("%zz") },
        ),
  );
  const { verb } = route.template;
  return fc.tuple(...segments).map((parts) => `/${parts.join("/")}${verb === "" ? "" : `:${verb}`}`);
}

const request = fc.constantFrom(...routes).chain((route) => {
  const names = fc.oneof(fc.constantFrom(...route.method.input.fields.map(({ name }) => name), "nope"), text);
  const pair = fc.tuple(names, text).map((both) => both.map((one) => encodeURIComponent(one.toWellFormed())).join("="));
  const body = route.body.kind === "field" ? (route.body.field.message ?? route.method.input) : route.method.input;
  return fc.record({
    route: fc.constant(route),
    path: pathOf(route),
    query: fc.array(pair, { maxLength: 3 }).map((pairs) => pairs.join("&")),
    body:
      route.body.kind === "none"
        ? fc.constant(undefined)
        : fc.oneof({ weight: 5, arbitrary: jsonOf(body, 0) }, { weight: 1, arbitrary: text }),
  });
});

describe("the REST face of the product", () => {
  test("answers no request with a status of our fault, and every refusal in one form", async () => {
    const statuses = new Map<number, number>();
    await fc.assert(
      fc.asyncProperty(request, async ({ route, path, query, body }) => {
        const response = await edge.fetch(query === "" ? path : `${path}?${query}`, {
          method: route.httpMethod,
          headers: body === undefined ? {} : { "content-type": "application/json" },
          ...(body === undefined ? {} : { body }),
        });
        const answer = await response.text();
        statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
        assert.ok(response.status < 500, `${route.httpMethod} ${path}?${query} ${body} → ${answer}`);
        if (response.status >= 400) {
          const { error } = JSON.parse(answer) as { error: { code: number; details: { reason?: string }[] } };
          assert.equal(error.code, response.status);
          assert.equal(typeof error.details[0]?.reason, "string");
          assert.doesNotMatch(answer, /agentmesh\.\w+\.v1\.|google\.protobuf/);
        }
      }),
      { numRuns: 1_500, interruptAfterTimeLimit: 20_000 },
    );
    assert.ok((statuses.get(200) ?? 0) > 0 && (statuses.get(400) ?? 0) > 0, JSON.stringify([...statuses]));
  });
});
