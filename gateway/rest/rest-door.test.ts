import assert from "node:assert/strict";
import { connect as connectH2 } from "node:http2";
import { after, before, describe, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { callOf } from "#platform/rpc/call.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { CHILD, COLOR, KITCHEN } from "../testing/kitchen.ts";
import { rawHttp } from "../testing/raw-http.ts";
import { schema } from "../testing/schema.ts";
import { KEY, openTestGateway, type TestGateway } from "../testing/test-gateway.ts";

const { service } = schema({
  messages: {
    Kitchen: KITCHEN,
    Child: CHILD,
    Answer: { kitchen: ".test.v1.Kitchen", children: [".test.v1.Child", { repeated: true }], note: "string" },
    Thing: { name: "string", etag: "string" },
    ThingAnswer: { thing: ".test.v1.Thing" },
  },
  enums: { Color: COLOR },
  methods: [
    {
      name: "Echo",
      input: "Kitchen",
      output: "Kitchen",
      http: { pattern: { case: "post", value: "/echo" }, body: "*" },
    },
    {
      name: "Read",
      input: "Kitchen",
      output: "Kitchen",
      http: { pattern: { case: "get", value: "/read/{string_value}" } },
    },
    { name: "Remove", input: "Child", output: "Child", http: { pattern: { case: "delete", value: "/read/{name}" } } },
    {
      name: "Inner",
      input: "Child",
      output: "Answer",
      http: {
        pattern: { case: "get", value: "/inner/{name}" },
        responseBody: "kitchen",
        additionalBindings: [
          { pattern: { case: "get", value: "/list/{name}" }, responseBody: "children" },
          { pattern: { case: "get", value: "/note/{name}" }, responseBody: "note" },
        ],
      },
    },
    {
      name: "Thing",
      input: "Child",
      output: "ThingAnswer",
      http: { pattern: { case: "get", value: "/thing/{name}" }, responseBody: "thing" },
    },
    { name: "Fail", input: "Child", output: "Child", http: { pattern: { case: "get", value: "/fail/{name}" } } },
    { name: "Slow", input: "Child", output: "Child", http: { pattern: { case: "get", value: "/slow" } } },
    {
      name: "Admin",
      input: "Child",
      output: "Child",
      anyScope: ["platform:admin"],
      http: { pattern: { case: "get", value: "/admin" } },
    },
  ],
});

interface Seen {
  requestId: string;
  timeoutMs: number | undefined;
  tenantId: string;
  header: Headers;
  aborted: boolean;
}

let edge: TestGateway;
let seen: Seen;

function implementation() {
  return {
    // biome-ignore lint/suspicious/noExplicitAny: the messages' types exist at run time only
    echo: (request: any, context: any) => {
      const call = callOf(context);
      const { requestId, principal } = call;
      const timeoutMs = context.timeoutMs();
      seen = { requestId, timeoutMs, tenantId: principal.tenantId, header: context.requestHeader, aborted: false };
      context.responseHeader.set("location", "/somewhere");
      context.responseHeader.set("x-private", "no");
      return request;
    },
    // biome-ignore lint/suspicious/noExplicitAny: as above
    read: (request: any) => request,
    // biome-ignore lint/suspicious/noExplicitAny: as above
    remove: (request: any) => request,
    inner: ({ name }: { name: string }) =>
      name === "absent" ? {} : { kitchen: { stringValue: name }, children: [{ name }], note: name },
    thing: ({ name }: { name: string }) => (name === "absent" ? {} : { thing: { name, etag: name } }),
    fail: ({ name }: { name: string }) => {
      if (name === "PLAIN") throw new Error("postgres://user:secret@host");
      if (name === "LIMITED") {
        throw new AppError({
          code: Code.ResourceExhausted,
          reason: "RATE_LIMITED",
          message: "Too fast.",
          retryAfterMs: 1500,
        });
      }
      if (name === "FOREIGN") throw new ConnectError("of a library", Code.NotFound);
      throw new AppError({ code: Code[name as keyof typeof Code], reason: "POLICY_DENIED", message: "käput: 100%\n" });
    },
    // biome-ignore lint/suspicious/noExplicitAny: as above
    slow: async (_request: any, context: any) => {
      await new Promise<void>((resolve) => context.signal.addEventListener("abort", () => resolve()));
      seen = { ...seen, aborted: true };
      throw context.signal.reason;
    },
    admin: () => ({}),
  };
}

before(async () => {
  edge = await openTestGateway({
    services: [service],
    routes: (router) => router.service(service, implementation() as never),
    limits: { maxBodyBytes: 64 * 1024, bodyTimeoutMs: 1_500, lingerMs: 300 },
  });
});
after(() => edge[Symbol.asyncDispose]());

function reason(body: { error: { details: { "@type": string; reason?: string }[] } }): string | undefined {
  return body.error.details.find((detail) => detail["@type"].endsWith("ErrorInfo"))?.reason;
}

async function assertRefused(
  status: number,
  wanted: string,
  method: string,
  path: string,
  body?: string,
  headers = {},
) {
  const answer = await edge.json(method, path, body, headers);
  assert.equal(answer.status, status, JSON.stringify(answer.body));
  assert.equal(reason(answer.body), wanted);
  assert.equal(answer.body.error.code, status);
  return answer;
}

describe("the REST face", () => {
  test("answers in snake_case with all fields, and passes on only what callers may see", async () => {
    const { status, headers, body } = await edge.json("POST", "/echo", {
      stringValue: "x",
      int64_value: "9007199254740993",
    });
    assert.equal(status, 200);
    assert.equal(body.string_value, "x");
    assert.equal(body.int64_value, "9007199254740993");
    assert.equal(body.bool_value, false);
    assert.deepEqual(body.numbers, []);
    assert.equal(headers.get("content-type"), "application/json");
    assert.equal(headers.get("location"), "/somewhere");
    assert.equal(headers.get("x-private"), null);
    assert.equal(headers.get("cache-control"), "no-store");
    assert.equal(headers.get("x-content-type-options"), "nosniff");
    assert.equal(headers.get("x-request-id"), seen.requestId);
  });

  test("hands on no header of the caller", async () => {
    await edge.json(
      "POST",
      "/echo",
      {},
      {
        "x-tenant-id": "ten_other",
        "x-user-id": "u",
        "x-internal-token": "t",
        "agentmesh-client-ip": "6.6.6.6",
        "x-request-id": "my-id.1",
        cookie: "a=b",
      },
    );
    assert.deepEqual(
      [...seen.header.keys()].filter((name) => /tenant|x-user|internal|cookie|api-key/.test(name)),
      [],
    );
    assert.equal(seen.header.get("agentmesh-client-ip"), "127.0.0.1");
    assert.match(seen.header.get("authorization") ?? "", /^Bearer ey/);
    assert.equal(seen.requestId, "my-id.1");
  });

  test("shows one field of the answer where the rule says so, null when it is absent", async () => {
    assert.equal((await edge.json("GET", "/inner/x")).body.string_value, "x");
    assert.equal((await edge.json("GET", "/inner/absent")).body, null);
    assert.deepEqual((await edge.json("GET", "/list/x")).body, [{ name: "x", big_size: "0" }]);
    assert.deepEqual((await edge.json("GET", "/list/absent")).body, []);
    assert.equal((await edge.json("GET", "/note/x")).body, "x");
  });

  test("shows a resource's etag as a header too", async () => {
    assert.equal((await edge.json("GET", "/thing/v1")).headers.get("etag"), '"v1"');
    assert.equal((await edge.json("GET", "/thing/absent")).headers.get("etag"), null);
    assert.equal((await edge.json("GET", "/thing/%22")).headers.get("etag"), null);
  });

  test("404 where there is nothing, 405 with Allow where there is something else", async () => {
    await assertRefused(404, "ROUTE_NOT_FOUND", "GET", "/nothing");
    await assertRefused(404, "ROUTE_NOT_FOUND", "GET", "/read/");
    await assertRefused(404, "ROUTE_NOT_FOUND", "GET", "//read/x");
    const refused = await assertRefused(405, "ROUTE_NOT_FOUND", "PATCH", "/read/x");
    assert.equal(refused.headers.get("allow"), "DELETE, GET");
  });

  test("the absolute form of a request target is understood", async () => {
    const request = `GET http://example.com/read/abs HTTP/1.1\r\nHost: x\r\nX-API-Key: ${KEY}\r\nConnection: close\r\n\r\n`;
    assert.match(await rawHttp(edge.port, request), /"string_value":"abs"/);
  });

  test("serves HTTP/2 as well", async () => {
    const session = connectH2(edge.url);
    const stream = session.request({
      ":method": "POST",
      ":path": "/echo",
      "x-api-key": KEY,
      "content-type": "application/json",
    });
    let status: number | undefined;
    stream.on("response", (headers) => {
      status = headers[":status"];
    });
    stream.end('{"string_value":"h2"}');
    const chunks = await stream.toArray();
    session.close();
    assert.equal(status, 200);
    assert.equal(JSON.parse(Buffer.concat(chunks).toString()).string_value, "h2");
  });
});

describe("bodies on the REST face", () => {
  test("an empty body is an empty object, whatever its type", async () => {
    assert.equal((await edge.json("POST", "/echo")).status, 200);
    assert.equal((await edge.json("POST", "/echo", "", { "content-type": "text/plain" })).status, 200);
  });

  const malformed = [
    '{"string_value":"x"',
    '{"string_value":"x"} x',
    "\uFEFF{}",
    '{"a":1,"a":2}',
    '"\\ud800"',
    "nope",
    "[".repeat(70),
  ];
  for (const body of malformed) {
    test(`${JSON.stringify(body.slice(0, 24))} is refused as malformed, with the place`, async () => {
      const { body: answer } = await assertRefused(400, "BODY_MALFORMED", "POST", "/echo", body);
      assert.match(answer.error.message, /line 1, column \d+/);
    });
  }

  test("bytes that are no UTF-8 are refused", async () => {
    const headers = { "content-type": "application/json" };
    const response = await edge.fetch("/echo", { method: "POST", headers, body: Buffer.from([0x22, 0xff, 0x22]) });
    assert.equal(response.status, 400);
    assert.equal(reason((await response.json()) as never), "BODY_MALFORMED");
  });

  test("another type or a compressed body is 415, and says what is taken", async () => {
    for (const type of [
      "text/plain",
      "application/x-www-form-urlencoded",
      "application/json; charset=latin1",
      "application/jsonx",
    ]) {
      const { body } = await assertRefused(415, "BODY_MALFORMED", "POST", "/echo", "{}", { "content-type": type });
      assert.match(body.error.message, /application\/json/);
    }
    await assertRefused(415, "BODY_MALFORMED", "POST", "/echo", "{}", { "content-encoding": "gzip" });
    for (const type of ["application/json", 'Application/JSON; charset="UTF-8"', "application/json;charset=utf-8"]) {
      assert.equal((await edge.json("POST", "/echo", "{}", { "content-type": type })).status, 200, type);
    }
  });

  test("a body where none belongs is refused", async () => {
    await assertRefused(400, "BODY_MALFORMED", "DELETE", "/read/x", "{}");
    const request = `GET /read/x HTTP/1.1\r\nHost: x\r\nX-API-Key: ${KEY}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`;
    assert.match(await rawHttp(edge.port, request), /400 Bad Request.*takes no body/s);
  });

  test("a body that says it is too large is refused before it is read", async () => {
    const head = `POST /echo HTTP/1.1\r\nHost: x\r\nX-API-Key: ${KEY}\r\nContent-Type: application/json\r\nContent-Length: 65537\r\n\r\n`;
    assert.match(await rawHttp(edge.port, head, '"PAYLOAD_TOO_LARGE"'), /^HTTP\/1.1 413 /);
  });

  test("a body that turns out too large is refused while it is read, and the sender sees the answer", async () => {
    const { body } = await assertRefused(
      413,
      "PAYLOAD_TOO_LARGE",
      "POST",
      "/echo",
      `{"string_value":"${"x".repeat(70_000)}"}`,
    );
    const info = body.error.details[0];
    assert.deepEqual(info.metadata, { max_bytes: "65536" });
    const endless = new ReadableStream({
      pull: (controller) => controller.enqueue(Buffer.alloc(16_384, "[")),
    });
    const headers = { "content-type": "application/json" };
    const response = await edge.fetch("/echo", {
      method: "POST",
      headers,
      body: endless,
      duplex: "half",
    } as RequestInit);
    assert.equal(response.status, 413);
    await response.text().catch(() => "");
  });

  test("a body just within the limit is taken", async () => {
    const text = "x".repeat(65_536 - '{"string_value":""}'.length);
    assert.equal((await edge.json("POST", "/echo", `{"string_value":"${text}"}`)).status, 200);
  });

  test("a body that does not come is 408", async () => {
    const head = `POST /echo HTTP/1.1\r\nHost: x\r\nX-API-Key: ${KEY}\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{`;
    assert.match(await rawHttp(edge.port, head, '"DEADLINE"'), /^HTTP\/1.1 408 /);
  });

  test("wrong fields are named by their paths, and nothing of the inside is told", async () => {
    const { body } = await assertRefused(
      400,
      "FIELD_INVALID",
      "POST",
      "/echo",
      '{"child":{"name":5},"numbers":[1,"x"]}',
    );
    const violations = body.error.details.find((detail: { "@type": string }) => detail["@type"].endsWith("BadRequest"));
    assert.deepEqual(
      violations.field_violations.map(({ field }: { field: string }) => field),
      ["child.name", "numbers[1]"],
    );
    assert.doesNotMatch(JSON.stringify(body), /test\.v1|protobuf/);
    await assertRefused(400, "FIELD_UNKNOWN", "POST", "/echo", '{"strin_value":"x"}');
  });
});

describe("errors on the REST face", () => {
  const statuses: Record<keyof typeof Code, number> = {
    Canceled: 499,
    Unknown: 500,
    InvalidArgument: 400,
    DeadlineExceeded: 504,
    NotFound: 404,
    AlreadyExists: 409,
    PermissionDenied: 403,
    ResourceExhausted: 429,
    FailedPrecondition: 400,
    Aborted: 409,
    OutOfRange: 400,
    Unimplemented: 501,
    Internal: 500,
    Unavailable: 503,
    DataLoss: 500,
    Unauthenticated: 401,
  };
  for (const [name, http] of Object.entries(statuses)) {
    test(`${name} is ${http} in the form of AIP-193`, async () => {
      const { body } = await assertRefused(http, "POLICY_DENIED", "GET", `/fail/${name}`);
      assert.equal(body.error.message, "käput: 100%\n");
      const canonical = name.replaceAll(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
      assert.equal(body.error.status, name === "Canceled" ? "CANCELLED" : canonical);
    });
  }

  test("that some library made up are INTERNAL, not what they seem", async () => {
    const { body } = await assertRefused(500, "INTERNAL", "GET", "/fail/FOREIGN");
    assert.doesNotMatch(JSON.stringify(body), /library/);
  });

  test("carry Retry-After and RetryInfo", async () => {
    const { status, headers, body } = await edge.json("GET", "/fail/LIMITED");
    assert.equal(status, 429);
    assert.equal(headers.get("retry-after"), "2");
    const retry = body.error.details.find((detail: { "@type": string }) => detail["@type"].endsWith("RetryInfo"));
    assert.equal(retry.retry_delay, "1.500s");
  });

  test("tell only the request id when the fault is ours", async () => {
    const { status, headers, body } = await edge.json("GET", "/fail/PLAIN");
    assert.equal(status, 500);
    assert.doesNotMatch(JSON.stringify(body), /secret|postgres/);
    const info = body.error.details.find((detail: { "@type": string }) => detail["@type"].endsWith("RequestInfo"));
    assert.equal(info.request_id, headers.get("x-request-id"));
  });

  test("a missing scope is 403 and names what would do", async () => {
    const { body } = await assertRefused(403, "SCOPE_MISSING", "GET", "/admin");
    assert.deepEqual(body.error.details[0].metadata, { scopes: "platform:admin" });
  });
});

describe("deadlines on the REST face", () => {
  test("are the default, what the caller asked for, or the shorter of two headers", async () => {
    await edge.json("POST", "/echo", {});
    assert.ok((seen.timeoutMs ?? 0) > 25_000 && (seen.timeoutMs ?? 0) <= 30_000, String(seen.timeoutMs));
    await edge.json("POST", "/echo", {}, { "x-request-timeout": "2.5" });
    assert.ok((seen.timeoutMs ?? 0) > 1_000 && (seen.timeoutMs ?? 0) <= 2_500, String(seen.timeoutMs));
    await edge.json("POST", "/echo", {}, { "x-request-timeout": "9", "connect-timeout-ms": "3000" });
    assert.ok((seen.timeoutMs ?? 0) <= 3_000, String(seen.timeoutMs));
  });

  test("that pass are 504, and the call is broken off", async () => {
    const { status, body } = await edge.json("GET", "/slow", undefined, { "x-request-timeout": "0.2" });
    assert.equal(status, 504);
    assert.equal(reason(body), "DEADLINE");
    await until(() => seen.aborted, "the handler's signal");
  });

  test("that are no durations are refused", async () => {
    for (const text of ["x", "0", "-1", "1e3", "9999999", ""]) {
      await assertRefused(400, "FIELD_INVALID", "GET", "/slow", undefined, { "x-request-timeout": text });
    }
  });

  test("a client that goes away breaks the call off", async () => {
    seen = { ...seen, aborted: false };
    const controller = new AbortController();
    const request = edge.fetch("/slow", { signal: controller.signal }).catch(() => {});
    await until(() => edge.gateway.edge.inFlight > 0, "the request");
    setTimeout(() => controller.abort(), 50);
    await request;
    await until(() => seen.aborted, "the handler's signal");
    await until(() => edge.gateway.edge.inFlight === 0, "the end of the exchange");
    assert.equal(edge.calls.ended.findLast(({ method }) => method === "Slow")?.code, "canceled");
  });
});
