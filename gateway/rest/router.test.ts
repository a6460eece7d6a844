import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import { PUBLIC_SERVICES, publicMethods } from "../public-services.ts";
import { CHILD, COLOR, KITCHEN } from "../testing/kitchen.ts";
import { type HttpInit, type MethodInit, schema } from "../testing/schema.ts";
import { routesOf } from "./route.ts";
import { createRouter, type Router } from "./router.ts";

const get = (path: string): HttpInit => ({ pattern: { case: "get", value: path } });
const post = (path: string, more: Partial<HttpInit> = {}): HttpInit =>
  ({ pattern: { case: "post", value: path }, body: "*", ...more }) as HttpInit;

function serviceWith(methods: readonly Partial<MethodInit>[]) {
  return schema({
    messages: { Kitchen: KITCHEN, Child: CHILD },
    enums: { Color: COLOR },
    methods: methods.map((init, index) => ({ name: `Call${index}`, input: "Kitchen", output: "Kitchen", ...init })),
  }).service;
}

function compile(...rules: readonly HttpInit[]): Router {
  return createRouter(publicMethods([serviceWith(rules.map((http) => ({ http })))]).flatMap(routesOf));
}

/** The index of the rule that a request leads to, or what it gets instead. */
function lead(router: Router, httpMethod: string, path: string): number | string {
  const match = router.match(httpMethod, path);
  if (match.kind === "route") return Number(match.route.method.name.slice("Call".length));
  return match.kind === "method" ? `405 ${match.allow.join(",")}` : "404";
}

describe("the router", () => {
  test("prefers a literal to one segment and one segment to the rest, whatever the order of the rules", () => {
    const rules = [
      get("/a/{string_value=**}"),
      get("/a/{string_value}"),
      get("/a/b"),
      get("/a/{string_value}/c"),
      get("/a/b/*"),
    ];
    const router = compile(...rules);
    const reversed = compile(...rules.toReversed());
    for (const [path, expected] of [
      ["/a/b", 2],
      ["/a/x", 1],
      ["/a/x/y", 0],
      ["/a/x/c", 3],
      ["/a/b/c", 4],
      ["/a/b/x/y", 0],
    ] as const) {
      assert.equal(lead(router, "GET", path), expected, path);
      assert.equal(lead(reversed, "GET", path), rules.length - 1 - expected, path);
    }
    assert.equal(lead(router, "GET", "/a"), "404");
  });

  test("looks on when the most exact path is not for the method", () => {
    const router = compile(post("/a/b"), get("/a/{string_value}"));
    assert.equal(lead(router, "GET", "/a/b"), 1);
    assert.equal(lead(router, "POST", "/a/b"), 0);
    assert.equal(lead(router, "POST", "/a/x"), "405 GET");
    assert.equal(lead(router, "DELETE", "/a/b"), "405 GET,POST");
    assert.equal(lead(router, "get", "/a/x"), "405 GET");
  });

  test("a colon in the last segment belongs to the verb, so that an id is never taken for one", () => {
    const router = compile(
      get("/runs/{string_value}"),
      post("/runs/{string_value}:cancel"),
      get("/runs/{string_value}/e:stream"),
    );
    assert.equal(lead(router, "POST", "/runs/run_1:cancel"), 1);
    assert.equal(lead(router, "GET", "/runs/run_1/e:stream"), 2);
    assert.equal(lead(router, "GET", "/runs/run_1:cancel"), "405 POST");
    assert.equal(lead(router, "GET", "/runs/run_1:undo"), "404");
    assert.equal(lead(router, "GET", "/runs/run_1:"), "404");
    assert.equal(lead(router, "GET", "/runs/run_1%3Acancel"), 0);
    assert.equal(lead(router, "GET", "/runs/run_1/e"), "404");
    assert.equal(lead(router, "POST", "/runs/run_1:%63ancel"), 1);
  });

  test("compares literals decoded, and an encoded slash is no slash", () => {
    const router = compile(get("/caf%C3%A9/b"), get("/a%2Fb"));
    assert.equal(lead(router, "GET", "/caf%C3%A9/b"), 0);
    assert.equal(lead(router, "GET", "/%63af%c3%a9/%62"), 0);
    assert.equal(lead(router, "GET", "/a%2Fb"), 1);
    assert.equal(lead(router, "GET", "/a%2fb"), 1);
    assert.equal(lead(router, "GET", "/a/b"), "404");
    assert.equal(lead(router, "GET", "/%ff/b"), "404");
  });

  test("an empty segment matches nothing", () => {
    const router = compile(get("/a/{string_value}"), get("/b/{string_value=**}"));
    for (const path of ["/a/", "/a//", "//a/x", "/a/x/", "/b/", "/b/x/", "/b//x", "", "a/x", "*"]) {
      assert.equal(lead(router, "GET", path), "404", path);
    }
  });
});

describe("at boot", () => {
  const refusals: readonly (readonly [what: string, rules: readonly HttpInit[], problem: RegExp])[] = [
    [
      "two rules for the same paths",
      [get("/a/{string_value}"), get("/a/{child.name}")],
      /Call1 and .*Call0 both answer GET \/a\/\*/,
    ],
    ["a variable that is no field", [get("/a/{nope}")], /TestService\.Call0: \{nope\} is no field/],
    ["a variable of a message type", [get("/a/{child}")], /neither a scalar nor an enum/],
    ["a repeated variable", [get("/a/{numbers}")], /neither a scalar nor an enum/],
    ["a variable in a oneof", [get("/a/{choice_text}")], /is part of a oneof/],
    ["a number of several segments", [get("/a/{int32_value=*/*}")], /is not a string/],
    ["a field that occurs twice", [get("/a/{string_value}/{string_value}")], /occurs twice/],
    ["a body on GET", [{ ...get("/a"), body: "*" } as HttpInit], /GET takes no body/],
    ["a body on DELETE", [{ pattern: { case: "delete", value: "/a" }, body: "*" }], /DELETE takes no body/],
    ["a body that is no field", [post("/a", { body: "nope" })], /body: nope is no field/],
    ["a body that is a scalar", [post("/a", { body: "string_value" })], /is not a message/],
    ["a response body that is no field", [{ ...get("/a"), responseBody: "nope" } as HttpInit], /response_body: nope/],
    ["a rule without a path", [{}], /has no path/],
    [
      "a method that is no HTTP method",
      [{ pattern: { case: "custom", value: { kind: "*", path: "/a" } } }],
      /no HTTP method/,
    ],
    [
      "bindings within bindings",
      [{ ...get("/a"), additionalBindings: [{ ...get("/b"), additionalBindings: [get("/c")] }] } as HttpInit],
      /within additional_bindings/,
    ],
  ];
  for (const [what, rules, problem] of refusals) {
    test(`${what} is refused`, () => {
      assert.throws(() => compile(...rules), problem);
    });
  }

  test("a stream without the sse option is refused, and so is a stream of requests", () => {
    const streaming = serviceWith([{ http: get("/a"), stream: "server" }]);
    assert.throws(() => publicMethods([streaming]).flatMap(routesOf), /needs the .*sse.* option/);
    const uploading = serviceWith([{ http: post("/a"), stream: "client" }]);
    assert.throws(() => publicMethods([uploading]).flatMap(routesOf), /stream of requests/);
  });

  test("a wrong sse option is refused", () => {
    const sse = { flat: true, eventOneof: "choice", data: "", id: "", resumeField: "" };
    for (const [change, problem] of [
      [{ id: "nope" }, /id: nope leads nowhere/],
      [{ id: "child" }, /id: child is not a scalar/],
      [{ data: "string_value" }, /is not a message/],
      [{ eventOneof: "nope" }, /no oneof nope/],
      [{ eventOneof: "" }, /flat needs event_oneof/],
      [{ resumeField: "child" }, /resume_field: child is not a scalar/],
      [{}, /flat: choice_text is not a message/],
    ] as const) {
      const service = serviceWith([{ http: get("/a"), stream: "server", sse: { ...sse, ...change } }]);
      assert.throws(() => publicMethods([service]).flatMap(routesOf), problem);
    }
  });

  test("additional bindings are routes of their own", () => {
    const router = compile({ ...get("/a/{string_value}"), additionalBindings: [post("/b")] } as HttpInit);
    assert.equal(lead(router, "GET", "/a/x"), 0);
    assert.equal(lead(router, "POST", "/b"), 0);
  });

  test("methods that are not public have no routes, whatever they are annotated with", () => {
    const service = serviceWith([
      { http: get("/a"), exposure: Exposure.INTERNAL },
      { http: get("/b"), exposure: Exposure.UNSPECIFIED },
      { http: get("/c"), exposure: Exposure.ANONYMOUS },
    ]);
    const router = createRouter(publicMethods([service]).flatMap(routesOf));
    assert.equal(lead(router, "GET", "/a"), "404");
    assert.equal(lead(router, "GET", "/b"), "404");
    assert.equal(lead(router, "GET", "/c"), 2);
  });

  test("every public method of the product has a route", () => {
    const methods = publicMethods(PUBLIC_SERVICES);
    createRouter(methods.flatMap(routesOf));
    assert.ok(methods.length > 20);
    for (const method of methods) assert.notEqual(routesOf(method).length, 0, method.name);
  });
});
