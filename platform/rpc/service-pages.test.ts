import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { describe, test } from "node:test";
import type { Component } from "../module/module.ts";
import { openPort } from "./port.ts";
import { withServicePages } from "./service-pages.ts";

const probeMs = 200;

/** A port whose own listener answers 418, with these components. */
async function open(components: readonly Component[], state = { ready: true, draining: false }) {
  const listener = withServicePages((_request, response) => void (response as ServerResponse).writeHead(418).end(), {
    components,
    ready: () => state.ready,
    draining: () => state.draining,
    ttlMs: 0,
    probeMs,
    log: { warn() {} },
    metrics: { contentType: "text/plain; version=0.0.4", text: async () => "agent_runs 3\n" },
  });
  const port = await openPort({ host: "127.0.0.1", port: 0, listener });
  const ask = async (path: string, init?: RequestInit) => {
    const response = await fetch(`http://127.0.0.1:${port.port}${path}`, init);
    const text = await response.text();
    const json = response.headers.get("content-type") === "application/json";
    const body = text === "" ? undefined : json ? JSON.parse(text) : text;
    return { status: response.status, headers: response.headers, body };
  };
  return { ask, state, [Symbol.asyncDispose]: () => port.close(0) };
}

function component(name: string, more: Partial<Component> = {}): Component {
  return { name, required: false, kind: "external", ping: async () => {}, ...more };
}

describe("the pages of a service's process", () => {
  test("show its components; one that answers with less makes it degraded, which is still 200", async () => {
    let less = false;
    await using port = await open([
      component("postgres", { required: true }),
      component("model", { degraded: () => less }),
    ]);
    assert.equal((await port.ask("/health")).body.status, "healthy");
    less = true;
    const { status, body, headers } = await port.ask("/health?verbose=1");
    assert.deepEqual([status, body.status], [200, "degraded"]);
    assert.deepEqual([body.components.model.status, body.components.postgres.status], ["degraded", "healthy"]);
    assert.equal(body.components.model.error, undefined);
    assert.equal(headers.get("cache-control"), "no-store");
  });

  test("a required component that answers with less is no reason to be unhealthy; one that is away is, with the other", async () => {
    await using less = await open([component("postgres", { required: true, degraded: () => true })]);
    assert.deepEqual([(await less.ask("/health")).status, (await less.ask("/health")).body.status], [200, "degraded"]);
    const ping = () => Promise.reject(new Error("away"));
    await using away = await open([
      component("postgres", { required: true, ping }),
      component("model", { degraded: () => true }),
    ]);
    const { status, body } = await away.ask("/health");
    assert.deepEqual([status, body.status, body.components.postgres.error], [503, "unhealthy", "unreachable"]);
  });

  test("a component that does not answer holds nobody longer than its time", async () => {
    await using port = await open([component("nats", { ping: () => new Promise(() => {}) })]);
    const begun = performance.now();
    const { body } = await port.ask("/health");
    assert.ok(performance.now() - begun < probeMs + 5_000);
    assert.deepEqual([body.status, body.components.nats.error], ["degraded", "timeout"]);
  });

  test("readiness follows the process and says why not; liveness fails for nothing", async () => {
    const ping = () => Promise.reject(new Error("away"));
    await using port = await open([component("postgres", { required: true, ping })]);
    const [ready, live] = [() => port.ask("/health/ready"), () => port.ask("/health/live")];
    assert.deepEqual([(await ready()).status, (await live()).status], [200, 200]);
    port.state.draining = true;
    assert.deepEqual([(await ready()).status, (await ready()).body.status], [503, "draining"]);
    port.state.draining = false;
    port.state.ready = false;
    assert.deepEqual([(await ready()).status, (await ready()).body.status], [503, "not_ready"]);
    assert.equal((await live()).status, 200);
  });

  test("show metrics to this host, but not to whom a proxy hands on", async () => {
    await using port = await open([]);
    const { status, body, headers } = await port.ask("/metrics");
    assert.deepEqual([status, body, headers.get("content-type")], [200, "agent_runs 3\n", "text/plain; version=0.0.4"]);
    for (const name of ["x-forwarded-for", "forwarded", "x-real-ip"]) {
      const handedOn = await port.ask("/metrics", { headers: { [name]: "127.0.0.1" } });
      assert.equal(handedOn.status, 403, name);
      assert.doesNotMatch(handedOn.body, /agent_runs/);
    }
  });

  test("take GET and HEAD only; every other path is the service's", async () => {
    await using port = await open([]);
    const head = await port.ask("/health", { method: "HEAD" });
    assert.deepEqual([head.status, head.body], [200, undefined]);
    const post = await port.ask("/health", { method: "POST" });
    assert.deepEqual([post.status, post.headers.get("allow")], [405, "GET, HEAD"]);
    for (const path of ["/", "/healthy", "/health/", "/constructor", "/agentmesh.agent.v1.RunTailService/TailRun"]) {
      assert.equal((await port.ask(path)).status, 418, path);
    }
  });
});
