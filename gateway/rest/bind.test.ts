import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Message } from "@bufbuild/protobuf";
import { AppError } from "#platform/rpc/errors.ts";
import { GATEWAY_LIMITS } from "../limits.ts";
import { CHILD, COLOR, KITCHEN } from "../testing/kitchen.ts";
import { type HttpInit, schema } from "../testing/schema.ts";
import { bindRequest } from "./bind.ts";
import { createAliases } from "./document-aliases.ts";
import { parseJson } from "./json/parse.ts";
import { type Route, routesOf } from "./route.ts";
import { createRouter } from "./router.ts";

const ALIASES = createAliases({
  query: { "test.v1.TestService.Call": { limit: "page_size" } },
  fields: { "test.v1.Thing": { id: "thing_id", created_at: "create_time" } },
  answer: {},
});

function routeOf(input: string, http: HttpInit): Route {
  const { service } = schema({
    messages: {
      Kitchen: KITCHEN,
      Child: CHILD,
      Thing: {
        thing_id: "string",
        display_name: "string",
        limits: ".test.v1.Child",
        labels: ["string", { mapKey: "string" }],
        facts: ".google.protobuf.Struct",
        tags: ["string", { repeated: true }],
        etag: "string",
        create_time: [".google.protobuf.Timestamp", { outputOnly: true }],
        active: "bool",
      },
      UpdateRequest: { thing: ".test.v1.Thing", update_mask: ".google.protobuf.FieldMask", request_id: "string" },
      ListRequest: { parent: "string", page_size: "int32", filter: ".test.v1.Kitchen" },
      DeleteRequest: { thing_id: "string", etag: "string", request_id: "string" },
    },
    enums: { Color: COLOR },
    methods: [{ input, output: "Child", http }],
  });
  const [route] = service.methods.flatMap(routesOf);
  assert.ok(route);
  return route;
}

interface Sent {
  path: string;
  query?: string;
  body?: string;
  headers?: Record<string, string>;
}

function bind(route: Route, { path, query = "", body, headers }: Sent): Record<string, unknown> & Message {
  const match = createRouter([route]).match(route.httpMethod, path);
  assert.equal(match.kind, "route", path);
  const json = body === undefined ? undefined : parseJson(body, { maxDepth: 64, maxNumberLength: 512 });
  const parts = {
    segments: match.kind === "route" ? match.segments : [],
    query,
    header: new Headers(headers),
    body: json,
  };
  return bindRequest(route, parts, {
    aliases: ALIASES,
    maxQueryParameters: GATEWAY_LIMITS.maxQueryParameters,
    maxViolations: GATEWAY_LIMITS.maxViolations,
  }) as Record<string, unknown> & Message;
}

function refusal(route: Route, sent: Sent): string {
  try {
    bind(route, sent);
  } catch (error) {
    assert.ok(error instanceof AppError, String((error as Error).stack));
    return `${error.reason} ${error.violations.map(({ field }) => field).join(" ")}`;
  }
  throw new Error(`${JSON.stringify(sent)} was taken`);
}

const query = routeOf("Kitchen", { pattern: { case: "get", value: "/q" } });
const single = routeOf("Kitchen", { pattern: { case: "get", value: "/a/{string_value}" } });
const multi = routeOf("Kitchen", { pattern: { case: "get", value: "/a/{string_value=x/**}" } });
const whole = routeOf("Kitchen", { pattern: { case: "post", value: "/b/{child.name}/{int32_value}" }, body: "*" });
const patch = routeOf("UpdateRequest", {
  pattern: { case: "patch", value: "/things/{thing.thing_id}" },
  body: "thing",
});
const list = routeOf("ListRequest", { pattern: { case: "get", value: "/parents/{parent}/things" } });
const remove = routeOf("DeleteRequest", { pattern: { case: "delete", value: "/things/{thing_id}" } });

describe("path variables", () => {
  test("of one segment are decoded entirely, those of several keep an encoded slash", () => {
    assert.equal(bind(single, { path: "/a/x%2Fy%25%20%C3%A9+z" })["stringValue"], "x/y% é+z");
    assert.equal(bind(multi, { path: "/a/x/y%2Fz/%2f%25/w%20" })["stringValue"], "x/y%2Fz/%2f%/w ");
  });

  test("with broken escapes are refused by name", () => {
    assert.equal(refusal(single, { path: "/a/%zz" }), "FIELD_INVALID string_value");
    assert.equal(refusal(single, { path: "/a/%C3" }), "FIELD_INVALID string_value");
    assert.equal(refusal(multi, { path: "/a/x/%ff" }), "FIELD_INVALID string_value");
  });

  test("are converted to their fields' types", () => {
    const message = bind(whole, { path: "/b/n/5", body: "{}" });
    assert.equal(message["int32Value"], 5);
    assert.equal((message["child"] as { name: string }).name, "n");
    assert.equal(refusal(whole, { path: "/b/n/5x", body: "{}" }), "FIELD_INVALID int32_value");
  });

  test("win over nothing: a different value in body or query is a conflict, an equal one is fine", () => {
    const path = "/b/n/5";
    assert.equal(bind(whole, { path, body: '{"int32_value":5,"child":{"name":"n","big_size":"1"}}' })["int32Value"], 5);
    assert.equal(refusal(whole, { path, body: '{"int32_value":6}' }), "FIELD_CONFLICT int32_value");
    assert.equal(refusal(whole, { path, body: '{"int32Value":6}' }), "FIELD_CONFLICT int32_value");
    assert.equal(refusal(whole, { path, body: '{"child":{"name":"other"}}' }), "FIELD_CONFLICT child.name");
    assert.equal(refusal(whole, { path, body: '{"int32_value":0}' }), "FIELD_CONFLICT int32_value");
    assert.equal(bind(whole, { path, body: '{"int32_value":null}' })["int32Value"], 5);
    assert.equal(bind(whole, { path, body: "{}", query: "int32_value=5" })["int32Value"], 5);
    assert.equal(refusal(whole, { path, body: "{}", query: "int32Value=7" }), "FIELD_CONFLICT int32Value");
    assert.equal(refusal(single, { path: "/a/x", query: "string_value=y" }), "FIELD_CONFLICT string_value");
  });
});

describe("query parameters", () => {
  const q = (text: string) => bind(query, { path: "/q", query: text });
  const refused = (text: string) => refusal(query, { path: "/q", query: text });

  test("reach scalars, enums, lists, nested fields and the well-known types that are texts", () => {
    const message = q(
      "double_value=-1.5e3&int64Value=9007199254740993&bool_value=true&string_value=a+b%2Bc&bytes_value=_-8" +
        "&color=COLOR_RED&numbers=1&numbers=2&texts=&child.child.name=deep&child.bigSize=7&maybe_number=0" +
        "&time=2026-01-31T12:00:00Z&span=1.5s&mask=displayName,labels&wrapped_text=&wrapped_flag=false&wrappedLong=5",
    );
    assert.equal(message["doubleValue"], -1500);
    assert.equal(message["int64Value"], 9007199254740993n);
    assert.equal(message["boolValue"], true);
    assert.equal(message["stringValue"], "a b+c");
    assert.deepEqual([...(message["bytesValue"] as Uint8Array)], [0xff, 0xef]);
    assert.equal(message["color"], 1);
    assert.deepEqual(message["numbers"], [1, 2]);
    assert.deepEqual(message["texts"], [""]);
    assert.equal((message["child"] as { child: { name: string } }).child.name, "deep");
    assert.equal(message["maybeNumber"], 0);
    assert.equal((message["time"] as { seconds: bigint }).seconds, 1769860800n);
    assert.deepEqual((message["mask"] as { paths: string[] }).paths, ["display_name", "labels"]);
    assert.equal(message["wrappedText"], "");
    assert.equal(message["wrappedFlag"], false);
    assert.equal(message["wrappedLong"], 5n);
  });

  test("that do not exist are refused by name", () => {
    assert.equal(refused("sesion_id=x"), "FIELD_UNKNOWN sesion_id");
    assert.equal(refused("child.nope=x&a..b=1&=x&__proto__=1"), "FIELD_UNKNOWN child.nope a..b  __proto__");
    assert.equal(refused("string_value.x=1"), "FIELD_UNKNOWN string_value.x");
    assert.equal(refused("facts.a=1"), "FIELD_UNKNOWN facts.a");
  });

  test("of the wrong type are refused by name", () => {
    for (const [text, field] of [
      ["int32_value=", "int32_value"],
      ["int32_value=1.5", "int32_value"],
      ["int32_value=0x10", "int32_value"],
      ["uint32_value=-1", "uint32_value"],
      ["bool_value=1", "bool_value"],
      ["bool_value=True", "bool_value"],
      ["color=RED", "color"],
      ["color=99999999999", "color"],
      ["numbers=1&numbers=x", "numbers"],
      ["time=now", "time"],
      ["labels=x", "labels"],
      ["child=x", "child"],
      ["children=x", "children"],
      ["facts=x", "facts"],
      ["any=x", "any"],
      ["bytes_value=a", "bytes_value"],
    ]) {
      assert.equal(refused(text as string), `FIELD_INVALID ${field}`, text);
    }
  });

  test("with broken escapes, or too many of them, are refused", () => {
    assert.equal(refused("string_value=%zz"), "FIELD_INVALID string_value");
    assert.equal(refused("%ff=x"), "FIELD_INVALID query");
    const most = GATEWAY_LIMITS.maxQueryParameters;
    q(Array.from({ length: most }, () => "texts=x").join("&"));
    assert.equal(refused(Array.from({ length: most + 1 }, () => "texts=x").join("&")), "FIELD_INVALID query");
  });

  test("given twice are a conflict unless they are equal or repeated", () => {
    assert.equal(q("int32_value=1&int32Value=1")["int32Value"], 1);
    assert.equal(refused("int32_value=1&int32Value=2"), "FIELD_CONFLICT int32Value");
    assert.equal(refused("choice_text=a&choice_child.name=b"), "FIELD_CONFLICT choice_child.name");
    assert.equal(refused("choice_child.name=b&choice_text=a"), "FIELD_CONFLICT choice_text");
    assert.equal(refused("choice_child.name=b&choice_child.child.name=c&nope=1"), "FIELD_UNKNOWN nope");
  });

  test("have no place where the body is the message, and none below the body's field", () => {
    assert.equal(refusal(whole, { path: "/b/n/5", query: "string_value=x" }), "FIELD_UNKNOWN string_value");
    assert.equal(refusal(patch, { path: "/things/t", query: "thing.active=true" }), "FIELD_UNKNOWN thing.active");
    const sent = { path: "/things/t", query: "thing.display_name=a", body: '{"display_name":"b"}' };
    assert.equal(refusal(patch, sent), "FIELD_CONFLICT thing.display_name");
    bind(patch, { ...sent, body: '{"display_name":"a"}' });
  });

  test("have the aliases of their method, and the field's own name beside", () => {
    assert.equal(bind(list, { path: "/parents/p/things", query: "limit=5" })["pageSize"], 5);
    assert.equal(
      refusal(list, { path: "/parents/p/things", query: "limit=5&page_size=6" }),
      "FIELD_CONFLICT page_size",
    );
    assert.equal(refusal(list, { path: "/parents/p/things", query: "limit=x" }), "FIELD_INVALID limit");
    assert.equal(refusal(query, { path: "/q", query: "limit=5" }), "FIELD_UNKNOWN limit");
  });
});

describe("bodies", () => {
  test("an absent body is an empty one", () => {
    assert.equal(bind(whole, { path: "/b/n/5" })["stringValue"], "");
    assert.notEqual(bind(patch, { path: "/things/t" })["thing"], undefined);
  });

  test("a body that is a field is read into it, with paths that begin there", () => {
    const { thing } = bind(patch, { path: "/things/t", body: '{"displayName":"x","active":true}' }) as never as {
      thing: Record<string, unknown>;
    };
    assert.deepEqual([thing["displayName"], thing["active"], thing["thingId"]], ["x", true, "t"]);
    assert.equal(refusal(patch, { path: "/things/t", body: '{"nope":1}' }), "FIELD_UNKNOWN thing.nope");
    assert.equal(
      refusal(patch, { path: "/things/t", body: '{"limits":{"name":1}}' }),
      "FIELD_INVALID thing.limits.name",
    );
    assert.equal(refusal(patch, { path: "/things/t", body: "[]" }), "FIELD_INVALID thing");
    assert.equal(refusal(patch, { path: "/things/t", body: "null" }), "FIELD_INVALID thing");
    assert.equal(refusal(whole, { path: "/b/n/5", body: '"x"' }), "FIELD_INVALID body");
  });

  test("aliases are taken for the fields that they name, and a resource with both is taken as it was read", () => {
    const body = '{"thing_id":"t","id":"t","create_time":"2026-01-31T12:00:00Z","created_at":"2026-01-31T12:00:00Z"}';
    bind(patch, { path: "/things/t", body });
    bind(patch, { path: "/things/t", body: '{"id":"t"}' });
    assert.equal(refusal(patch, { path: "/things/t", body: '{"id":"u"}' }), "FIELD_CONFLICT thing.thing_id");
  });
});

describe("update masks", () => {
  const maskOf = (sent: Omit<Sent, "path">) => {
    const { updateMask } = bind(patch, { path: "/things/t", ...sent }) as never as { updateMask?: { paths: string[] } };
    return updateMask?.paths;
  };
  const refused = (sent: Omit<Sent, "path">) => refusal(patch, { path: "/things/t", ...sent });

  test("without one, the keys of the body are it, so that empty values clear", () => {
    assert.deepEqual(maskOf({ body: '{"displayName":"","active":false,"tags":[],"labels":null,"facts":{"a":1}}' }), [
      "display_name",
      "active",
      "tags",
      "labels",
      "facts",
    ]);
    assert.deepEqual(maskOf({ body: '{"limits":{"big_size":"0","child":{"name":null}}}' }), [
      "limits.big_size",
      "limits.child.name",
    ]);
    assert.deepEqual(maskOf({ body: '{"limits":{}}' }), ["limits"]);
    assert.equal(maskOf({ body: "{}" }), undefined);
    assert.equal(maskOf({}), undefined);
  });

  test("what the server sets, the id of the path and the etag are not in it: a resource may be sent back whole", () => {
    const body =
      '{"thing_id":"t","create_time":"2026-01-31T12:00:00Z","created_at":"2026-01-31T12:00:00Z","etag":"e","active":true}';
    assert.deepEqual(maskOf({ body }), ["active"]);
  });

  test("a mask in the query or beside the body's fields is taken, in both spellings", () => {
    const body = '{"display_name":"x"}';
    assert.deepEqual(maskOf({ query: "update_mask=displayName,limits.bigSize", body }), [
      "display_name",
      "limits.big_size",
    ]);
    assert.deepEqual(maskOf({ query: "updateMask=display_name", body }), ["display_name"]);
    assert.deepEqual(maskOf({ body: '{"update_mask":"displayName","active":true}' }), ["display_name"]);
    assert.deepEqual(maskOf({ body: '{"updateMask":"*","active":true}' }), ["*"]);
    assert.deepEqual(maskOf({ query: "update_mask=labels.some_key", body }), ["labels.some_key"]);
  });

  test("two different masks are a conflict, and unknown names are refused", () => {
    assert.equal(
      refused({ query: "update_mask=active", body: '{"update_mask":"tags"}' }),
      "FIELD_CONFLICT update_mask",
    );
    assert.equal(refused({ query: "update_mask=nope", body: "{}" }), "UPDATE_MASK_INVALID update_mask");
    assert.equal(refused({ query: "update_mask=limits.nope", body: "{}" }), "UPDATE_MASK_INVALID update_mask");
    assert.equal(refused({ query: "update_mask=active.x", body: "{}" }), "UPDATE_MASK_INVALID update_mask");
    assert.equal(refused({ query: "update_mask=*,active", body: "{}" }), "UPDATE_MASK_INVALID update_mask");
    assert.equal(refused({ query: "update_mask=a b", body: "{}" }), "FIELD_INVALID update_mask");
  });
});

describe("headers", () => {
  test("Idempotency-Key is the request id, quoted or bare, and must not contradict it", () => {
    const path = "/things/t";
    assert.equal(bind(remove, { path, headers: { "idempotency-key": "abc" } })["requestId"], "abc");
    assert.equal(bind(remove, { path, headers: { "idempotency-key": '"abc"' } })["requestId"], "abc");
    assert.equal(
      bind(remove, { path, query: "request_id=abc", headers: { "idempotency-key": "abc" } })["requestId"],
      "abc",
    );
    assert.equal(
      refusal(remove, { path, query: "request_id=x", headers: { "idempotency-key": "y" } }),
      "FIELD_CONFLICT request_id",
    );
    bind(list, { path: "/parents/p/things", headers: { "idempotency-key": "abc" } });
  });

  test("If-Match is the etag, of the request or of the resource in the body, and is never dropped", () => {
    const path = "/things/t";
    assert.equal(bind(remove, { path, headers: { "if-match": '"e1"' } })["etag"], "e1");
    const { thing } = bind(patch, { path, headers: { "if-match": "e2" } }) as never as { thing: { etag: string } };
    assert.equal(thing.etag, "e2");
    assert.equal(
      refusal(patch, { path, body: '{"etag":"e1"}', headers: { "if-match": '"e2"' } }),
      "FIELD_CONFLICT thing.etag",
    );
    assert.equal(bind(remove, { path, headers: { "if-match": "*" } })["etag"], "");
    assert.equal(refusal(remove, { path, headers: { "if-match": 'W/"e"' } }), "FIELD_INVALID If-Match");
    assert.equal(refusal(remove, { path, headers: { "if-match": '"a", "b"' } }), "FIELD_INVALID If-Match");
    assert.equal(refusal(whole, { path: "/b/n/5", headers: { "if-match": '"e"' } }), "FIELD_INVALID If-Match");
  });
});
