import assert from "node:assert/strict";
import { connect as connectH2 } from "node:http2";
import { describe, test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { EmbeddedLimiter } from "#platform/redis/embedded-limiter.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { networkOf } from "#platform/rpc/network.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import { GATEWAY_LIMITS, type GatewayLimits } from "../limits.ts";
import { PUBLIC_SERVICES, publicMethods } from "../public-services.ts";
import { KEY, openTestGateway, TENANT, type TestGateway } from "../testing/test-gateway.ts";
import { classOf } from "./method-class.ts";
import { createRateLimits } from "./rate-limits.ts";

const headers = { authorization: `Bearer ${KEY}` };

/** Rates of next to nothing, so that only bursts count; what a test does not name is off. */
const bursts = (limits: Partial<GatewayLimits>): Partial<GatewayLimits> => {
  const rates = Object.entries(limits).map(([name, burst]) => [name, name.endsWith("Rate") ? burst / 1000 : burst]);
  return { rateBurstMs: 1_000_000, ...Object.fromEntries(rates) };
};

async function openMesh(limits: Partial<GatewayLimits>, limiter = new EmbeddedLimiter()) {
  let served = 0;
  const edge = await openTestGateway({
    services: [ChatService, RunService],
    routes: (router) => {
      router.service(ChatService, {
        chat: ({ message }) => {
          served += 1;
          return { response: message };
        },
        async *chatStream(_request, { signal }) {
          yield { event: { seq: 1n, payload: { case: "text", value: { content: "x" } } } };
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      });
      router.service(RunService, { listRuns: () => ({}), cancelRun: () => ({}) });
    },
    limits,
    limiter,
  });
  const chat = (key = KEY) => edge.json("POST", "/api/v1/chat", { message: "x" }, { authorization: `Bearer ${key}` });
  return {
    edge,
    chat,
    list: () => edge.json("GET", "/api/v1/runs"),
    served: () => served,
    grpc: createClient(ChatService, createGrpcTransport({ baseUrl: edge.url })),
    connect: createClient(ChatService, createConnectTransport({ baseUrl: edge.url, httpVersion: "1.1" })),
    [Symbol.asyncDispose]: () => edge[Symbol.asyncDispose](),
  };
}

const reasonIn = (body: { error: { details: { reason: string }[] } }) => body.error.details[0]?.reason;

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.then(
    () => assert.fail("it was answered"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ConnectError);
  return error;
}

describe("rate limits at the edge", () => {
  test("REST: answers say what is left; beyond the limit 429 with Retry-After, RetryInfo and the limit", async () => {
    await using mesh = await openMesh(bursts({ tenantRunRate: 3, keyRunRate: 2 }));
    const first = await mesh.chat();
    assert.equal(first.status, 200);
    assert.equal(first.headers.get("ratelimit-policy"), '"key-runs";q=2;w=1000, "tenant-runs";q=3;w=1000');
    assert.equal(first.headers.get("ratelimit"), '"key-runs";r=1;t=500, "tenant-runs";r=2;t=334');
    await mesh.chat();
    const refused = await mesh.chat();
    assert.equal(refused.status, 429);
    assert.equal(refused.body.error.status, "RESOURCE_EXHAUSTED");
    assert.equal(reasonIn(refused.body), "RATE_LIMITED");
    assert.equal(refused.body.error.details[0].metadata.limit, "key-runs");
    assert.match(JSON.stringify(refused.body.error.details), /google\.rpc\.RetryInfo.*retryDelay|retry_delay/);
    assert.match(refused.headers.get("retry-after") ?? "", /^(499|500)$/);
    assert.match(refused.headers.get("ratelimit") ?? "", /^"key-runs";r=0;/);
    const windows = [...(refused.headers.get("ratelimit") ?? "").matchAll(/;t=(\d+)/g)].map(([, t]) => Number(t));
    assert.equal(windows.length, 2);
    assert.ok(Math.max(...windows) <= Number(refused.headers.get("retry-after")), "Retry-After ends within a window");
    assert.equal(mesh.served(), 2);
  });

  test("Connect and gRPC take from the same buckets, and the refusal has the same reason", async () => {
    await using mesh = await openMesh(bursts({ keyRunRate: 2 }));
    let policy: string | null = null;
    await mesh.connect.chat(
      { message: "x" },
      { headers, onHeader: (answer) => (policy = answer.get("ratelimit-policy")) },
    );
    assert.equal(policy, '"key-runs";q=2;w=1000');
    await mesh.grpc.chat({ message: "x" }, { headers });
    for (const client of [mesh.connect, mesh.grpc]) {
      const error = await failure(client.chat({ message: "x" }, { headers }));
      assert.equal(error.code, Code.ResourceExhausted);
      assert.equal(reasonOf(error), "RATE_LIMITED");
      assert.ok(error.findDetails(RetryInfoSchema)[0]?.retryDelay);
      assert.equal(error.metadata.get("www-authenticate"), null);
    }
    const raw = await mesh.edge.fetch(`/${ChatService.typeName}/Chat`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    assert.equal(raw.status, 429);
    assert.match(raw.headers.get("retry-after") ?? "", /^\d+$/);
    assert.equal((await mesh.chat()).status, 429);
  });

  test("a refusal comes before the body is read", async () => {
    await using mesh = await openMesh(bursts({ keyRunRate: 1 }));
    await mesh.chat();
    const session = connectH2(mesh.edge.url);
    const stream = session.request({
      ":method": "POST",
      ":path": "/api/v1/chat",
      "content-type": "application/json",
      ...headers,
    });
    stream.write("{");
    const status = await new Promise((resolve) => stream.once("response", (answer) => resolve(answer[":status"])));
    assert.equal(status, 429);
    session.destroy();
  });

  test("runs, writes and reads have limits of their own, tenants and keys too", async () => {
    await using mesh = await openMesh(bursts({ tenantRunRate: 2, keyRunRate: 1, keyReadRate: 1 }));
    const { edge } = mesh;
    edge.keys.known.set("second", { credentialId: "key_2" });
    edge.keys.known.set("third", { credentialId: "key_3" });
    edge.keys.known.set("foreign", { credentialId: "key_9", tenantId: "ten_00000000000000000000000009" });
    assert.equal((await mesh.chat()).status, 200);
    assert.equal((await mesh.chat()).status, 429);
    assert.equal((await mesh.list()).status, 200);
    assert.equal((await mesh.list()).status, 429);
    const cancel = await edge.json("POST", "/api/v1/runs/run_00000000000000000000000001:cancel", {});
    assert.notEqual(cancel.status, 429);
    assert.equal((await mesh.chat("second")).status, 200);
    const refused = await mesh.chat("third");
    assert.equal(refused.status, 429, "the tenant's own limit");
    assert.equal(refused.body.error.details[0].metadata.limit, "tenant-runs");
    assert.equal((await mesh.chat("foreign")).status, 200);
  });

  test("are off where the rate is 0: no header, no refusal", async () => {
    await using mesh = await openMesh({});
    const answer = await mesh.chat();
    assert.equal(answer.headers.get("ratelimit"), null);
    assert.equal(answer.headers.get("ratelimit-policy"), null);
  });

  test("refusals are counted by limit and class, and logged once per tenant and minute", async () => {
    const metrics = createMetrics({ process: false });
    const lines: unknown[] = [];
    const limits = createRateLimits({
      limiter: new EmbeddedLimiter(),
      limits: { ...GATEWAY_LIMITS, ...bursts({ tenantRunRate: 1, keyRunRate: 1 }) },
      replicas: 1,
      factor: () => 1,
      metrics,
      log: { warn: (fields: unknown) => void lines.push(fields) },
    });
    const principal = { tenantId: TENANT, subject: "key_1", credentialId: "key_1", scopes: [], actors: [] };
    const call = () => limits.enforce(ChatService.method.chat, principal, { setHeader: () => {} });
    await call();
    for (let i = 0; i < 5; i++) await assert.rejects(call(), { reason: "RATE_LIMITED" });
    assert.deepEqual(lines, [{ event: "rate.limited", tenant_id: TENANT, scope: "key-runs" }]);
    const text = await metrics.text();
    assert.match(text, /gateway_rate_limited_total\{limit="key",class="runs"\} 5/);
    assert.match(text, /gateway_rate_limited_total\{limit="tenant",class="runs"\} 5/);
  });

  test("are lowered under load", async () => {
    let factor = 0.5;
    const limits = createRateLimits({
      limiter: new EmbeddedLimiter(),
      limits: { ...GATEWAY_LIMITS, ...bursts({ tenantReadRate: 0, keyReadRate: 10 }) },
      replicas: 1,
      factor: () => factor,
      metrics: createMetrics({ process: false }),
      log: { warn: () => {} },
    });
    const allowed = async (credentialId: string) => {
      const principal = { tenantId: TENANT, subject: credentialId, credentialId, scopes: [], actors: [] };
      let count = 0;
      const call = () => limits.enforce(RunService.method.listRuns, principal, { setHeader: () => {} });
      while (
        await call().then(
          () => true,
          () => false,
        )
      )
        count += 1;
      return count;
    };
    assert.equal(await allowed("key_1"), 5);
    factor = 0.7;
    assert.equal(await allowed("key_2"), 7);
    factor = 1;
    assert.equal(await allowed("key_3"), 10);
  });

  test("every public method is in the class that its HTTP method says", () => {
    const classes = new Map(publicMethods(PUBLIC_SERVICES).map((method) => [method.name, classOf(method)]));
    for (const [name, klass] of classes) assert.equal(klass === "reads", /^(Get|List|StreamRun)/.test(name), name);
    assert.deepEqual(
      [...classes].filter(([, klass]) => klass === "runs").map(([name]) => name),
      ["Chat", "ChatStream", "StartRun"],
    );
  });
});

describe("refused credentials", () => {
  test("of one address end in 429 before anything is looked up; a credential that is remembered goes on", async () => {
    await using mesh = await openMesh({ addressFailureRate: 0.001, addressFailureBurst: 5 });
    assert.equal((await mesh.chat()).status, 200);
    for (let i = 0; i < 5; i++) assert.equal((await mesh.chat(`guess-${i}`)).status, 401);
    const { asked } = mesh.edge.keys;
    const refused = await mesh.chat("guess-6");
    assert.equal(refused.status, 429);
    assert.equal(reasonIn(refused.body), "RATE_LIMITED");
    assert.match(refused.headers.get("retry-after") ?? "", /^\d+$/);
    const error = await failure(mesh.connect.chat({ message: "x" }, { headers: { "x-api-key": "guess-7" } }));
    assert.equal(reasonOf(error), "RATE_LIMITED");
    assert.equal(mesh.edge.keys.asked, asked);
    assert.equal((await mesh.chat()).status, 200);
  });

  test("good credentials and a missing one are no failures", async () => {
    await using mesh = await openMesh({ addressFailureRate: 0.001, addressFailureBurst: 1 });
    for (let i = 0; i < 5; i++) assert.equal((await fetch(`${mesh.edge.url}/api/v1/runs`)).status, 401);
    for (let i = 0; i < 5; i++) assert.equal((await mesh.chat()).status, 200);
    mesh.edge.keys.suspended = true;
    mesh.edge.keys.known.set("suspended", {});
    for (let i = 0; i < 5; i++) assert.equal((await mesh.chat("suspended")).status, 403);
  });

  test("count by network for IPv6", () => {
    const same = ["2001:db8:1:2::1", "2001:0db8:0001:0002:ffff:ffff:ffff:ffff", "2001:DB8:1:2:0:0:0:9"];
    assert.deepEqual(new Set(same.map(networkOf)), new Set(["2001:db8:1:2::/64"]));
    assert.equal(networkOf("::1"), "0:0:0:0::/64");
    assert.equal(networkOf("2001:db8::1"), "2001:db8:0:0::/64");
    assert.equal(networkOf("192.0.2.1"), "192.0.2.1");
    assert.equal(networkOf("not an address"), "not an address");
  });
});

describe("open streams of a tenant", () => {
  const open = (edge: TestGateway, signal: AbortSignal) =>
    edge.fetch("/api/v1/chat/stream", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"message":"x"}',
      signal,
    });

  test("are limited over all faces, and a place is given back however a stream ends", async () => {
    await using mesh = await openMesh({ maxTenantStreams: 2 });
    const { edge, grpc } = mesh;
    for (let round = 0; round < 3; round++) {
      const leave = new AbortController();
      assert.equal((await open(edge, leave.signal)).status, 200);
      const rpc = grpc.chatStream({ message: "x" }, { headers, signal: leave.signal })[Symbol.asyncIterator]();
      await rpc.next();
      const refused = await edge.json("POST", "/api/v1/chat/stream", { message: "x" });
      assert.equal(refused.status, 429);
      assert.equal(reasonIn(refused.body), "CONCURRENCY_LIMIT");
      const third = grpc.chatStream({ message: "x" }, { headers })[Symbol.asyncIterator]();
      assert.equal(reasonOf(await failure(third.next())), "CONCURRENCY_LIMIT");
      assert.equal((await mesh.chat()).status, 200, "unary calls need no place");
      leave.abort();
      rpc.next().catch(() => {});
      await until(() => edge.gateway.streams.tenants === 0, "the places");
    }
  });

  test("no place is lost to streams that are refused, cut or reset", async () => {
    await using mesh = await openMesh({ maxTenantStreams: 3 });
    const { edge } = mesh;
    const bad = await edge.json("POST", "/api/v1/chat/stream", { unknown: 1 });
    assert.equal(bad.status, 400);
    for (let i = 0; i < 30; i++) {
      const session = connectH2(edge.url);
      session.on("error", () => {});
      const stream = session.request({
        ":method": "POST",
        ":path": "/api/v1/chat/stream",
        "content-type": "application/json",
        ...headers,
      });
      stream.on("error", () => {});
      stream.end('{"message":"x"}');
      if (i % 3 === 0) await new Promise((resolve) => stream.once("response", resolve));
      if (i % 2 === 0) session.destroy();
      else stream.close(8);
      if (i % 2 !== 0) session.close();
    }
    await until(() => edge.gateway.streams.tenants === 0, "the places");
    await until(() => edge.gateway.edge.inFlight === 0, "the end of all requests");
  });
});
