import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SessionService } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import type { Component } from "#platform/module/module.ts";
import { openTestGateway, type TestGatewayInit } from "../testing/test-gateway.ts";

function open(more: Partial<TestGatewayInit> = {}) {
  return openTestGateway({
    services: [SessionService],
    routes: (router) => router.service(SessionService, {}),
    ...more,
  });
}

function component(name: string, required: boolean, ping: Component["ping"]): Component {
  return { name, required, kind: "external", ping };
}

const up = async () => {};
const down = async () => {
  throw new Error("connect ECONNREFUSED 10.1.2.3:5432");
};
const hanging = () => new Promise<void>(() => {});

interface HealthBody {
  status: string;
  components: Record<string, { status: string; error?: string; details: { required: boolean; kind: string } }>;
  timestamp: string;
}

async function health(components: readonly Component[]): Promise<[number, HealthBody, string]> {
  await using edge = await open({ components, limits: { healthProbeMs: 300 } });
  const response = await fetch(`${edge.url}/health`);
  const text = await response.text();
  return [response.status, JSON.parse(text) as HealthBody, text];
}

describe("/health", () => {
  test("is healthy when every component answers", async () => {
    const [status, body] = await health([component("postgres", true, up), component("redis", false, up)]);
    assert.equal(status, 200);
    assert.equal(body.status, "healthy");
    assert.deepEqual(Object.keys(body.components), ["postgres", "redis"]);
    assert.equal(body.components["postgres"]?.status, "healthy");
    assert.ok(Math.abs(Date.parse(body.timestamp) - Date.now()) < 60_000);
  });

  test("is degraded, and still 200, without a component that is not required", async () => {
    const [status, body] = await health([component("postgres", true, up), component("nats", false, hanging)]);
    assert.equal(status, 200);
    assert.equal(body.status, "degraded");
    assert.equal(body.components["nats"]?.error, "timeout");
  });

  test("is unhealthy, and 503, without a required one, and tells nothing of the inside", async () => {
    const [status, body, text] = await health([component("postgres", true, down)]);
    assert.equal(status, 503);
    assert.equal(body.status, "unhealthy");
    assert.equal(body.components["postgres"]?.error, "unreachable");
    assert.doesNotMatch(text, /10\.1\.2\.3|ECONNREFUSED/);
  });

  test("asks the components once for many that look, and again after a while", async () => {
    let asked = 0;
    const counting = async () => {
      asked += 1;
    };
    await using edge = await open({
      components: [component("redis", false, counting)],
      limits: { healthTtlMs: 1_000 },
    });
    await Promise.all(Array.from({ length: 20 }, () => fetch(`${edge.url}/health`)));
    assert.equal(asked, 1);
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    await fetch(`${edge.url}/health`);
    assert.equal(asked, 2);
  });

  test("readiness follows the process, liveness nothing", async () => {
    await using edge = await open({ components: [component("postgres", true, down)] });
    const statuses = async () =>
      Promise.all(["ready", "live"].map(async (page) => (await fetch(`${edge.url}/health/${page}`)).status));
    assert.deepEqual(await statuses(), [200, 200]);
    edge.health.isReady = false;
    assert.deepEqual(await statuses(), [503, 200]);
  });

  test("answers HEAD without a body and refuses other methods", async () => {
    await using edge = await open();
    const head = await fetch(`${edge.url}/health`, { method: "HEAD" });
    assert.deepEqual([head.status, await head.text()], [200, ""]);
    const post = await fetch(`${edge.url}/health`, { method: "POST" });
    assert.deepEqual([post.status, post.headers.get("allow")], [405, "GET, HEAD"]);
  });
});

describe("/metrics", () => {
  test("is Prometheus text for this host", async () => {
    await using edge = await open();
    await edge.json("GET", "/api/v1/nothing");
    const response = await fetch(`${edge.url}/metrics`);
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type") ?? "", /^text\/plain/);
  });

  test("is not for whoever a proxy hands on, unless the proxy is trusted and the client near", async () => {
    const ask = async (config: TestGatewayInit["config"], forwardedFor: string) => {
      await using edge = await open(config === undefined ? {} : { config });
      return (await fetch(`${edge.url}/metrics`, { headers: { "x-forwarded-for": forwardedFor } })).status;
    };
    assert.equal(await ask(undefined, "10.0.0.1"), 403);
    assert.equal(await ask({ trustedProxies: ["127.0.0.1"] }, "203.0.113.1"), 403);
    assert.equal(await ask({ trustedProxies: ["127.0.0.1"] }, "10.0.0.1"), 200);
    assert.equal(await ask({ metricsPublic: true }, "203.0.113.1"), 200);
  });

  test("is never for scripts of other origins", async () => {
    await using edge = await open();
    const response = await fetch(`${edge.url}/metrics`, { headers: { origin: "https://evil.example" } });
    assert.equal(response.headers.get("access-control-allow-origin"), null);
  });
});

describe("/", () => {
  test("says where to go", async () => {
    await using edge = await open();
    const body = (await (await fetch(edge.url)).json()) as Record<string, string>;
    assert.equal(body["health"], "/health");
    assert.equal(body["rest"], "/api/v1");
  });
});

describe("CORS", () => {
  const preflight = (url: string, origin: string) =>
    fetch(`${url}/api/v1/chat`, {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization" },
    });

  test("lets any origin call an embedded process, without cookies", async () => {
    await using edge = await open();
    const asked = await preflight(edge.url, "https://app.example");
    assert.equal(asked.status, 204);
    assert.equal(asked.headers.get("access-control-allow-origin"), "*");
    assert.equal(asked.headers.get("access-control-allow-credentials"), null);
    assert.match(
      asked.headers.get("access-control-allow-headers") ?? "",
      /Authorization.*Idempotency-Key.*Last-Event-ID/,
    );
    assert.match(asked.headers.get("access-control-allow-methods") ?? "", /PATCH, DELETE/);
    const answer = await edge.fetch("/api/v1/nothing", { headers: { origin: "https://app.example" } });
    assert.equal(answer.headers.get("access-control-allow-origin"), "*");
    assert.match(answer.headers.get("access-control-expose-headers") ?? "", /Grpc-Status.*Location.*X-Request-Id/i);
    const rpc = await edge.fetch("/agentmesh.agent.v1.SessionService/GetSession", {
      headers: { origin: "https://app.example" },
    });
    assert.equal(rpc.headers.get("access-control-allow-origin"), "*");
  });

  test("lets nobody in by default in a distributed process, and listed origins when configured", async () => {
    await using closed = await open({ mode: "distributed" });
    assert.equal((await preflight(closed.url, "https://app.example")).headers.get("access-control-allow-origin"), null);
    await using some = await open({ mode: "distributed", config: { corsOrigins: ["https://app.example"] } });
    const allowed = await preflight(some.url, "https://app.example");
    assert.equal(allowed.headers.get("access-control-allow-origin"), "https://app.example");
    assert.equal(allowed.headers.get("vary"), "Origin");
    const other = await preflight(some.url, "https://app.example.evil");
    assert.equal(other.headers.get("access-control-allow-origin"), null);
    assert.equal(other.headers.get("vary"), "Origin");
  });
});
