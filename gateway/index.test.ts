import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { ConfigError } from "#platform/config/config-error.ts";
import { describeConfig, loadConfig } from "#platform/config/load.ts";
import type { Platform } from "#platform/module/module.ts";
import { openPort, PORT_LIMITS } from "#platform/rpc/port.ts";
import { openTestMesh } from "#platform/rpc/test-mesh.contract.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import { readGatewayConfig } from "./config.ts";
import { gateway } from "./index.ts";
import { GATEWAY_LIMITS } from "./limits.ts";

const read = (env: Record<string, string>) => loadConfig(readGatewayConfig, { env, dir: false });

describe("the gateway's configuration", () => {
  test("has safe defaults", () => {
    assert.deepEqual(read({}), {
      trustedProxies: [],
      corsOrigins: undefined,
      metricsPublic: false,
      replicas: 1,
      limits: { ...GATEWAY_LIMITS },
      port: { ...PORT_LIMITS },
    });
  });

  test("takes lists, sizes and times", () => {
    const config = read({
      AGENTMESH_GATEWAY__TRUSTED_PROXIES: "10.0.0.0/8, ::1",
      AGENTMESH_GATEWAY__CORS_ORIGINS: "https://app.example,http://localhost:3000",
      AGENTMESH_GATEWAY__METRICS_PUBLIC: "true",
      AGENTMESH_GATEWAY__MAX_BODY_BYTES: "2048",
      AGENTMESH_GATEWAY__HEARTBEAT: "1s",
      AGENTMESH_GATEWAY__REPLICAS: "3",
      AGENTMESH_GATEWAY__RATES__TENANT_RUNS: "0.5",
      AGENTMESH_GATEWAY__RATES__KEY_READS: "0",
      AGENTMESH_GATEWAY__RATES__BURST: "2s",
      AGENTMESH_GATEWAY__TENANT_STREAMS: "7",
    });
    assert.equal(config.replicas, 3);
    assert.equal(config.limits.tenantRunRate, 0.5);
    assert.equal(config.limits.keyReadRate, 0);
    assert.equal(config.limits.rateBurstMs, 2000);
    assert.equal(config.limits.maxTenantStreams, 7);
    assert.deepEqual(config.trustedProxies, ["10.0.0.0/8", "::1"]);
    assert.deepEqual(config.corsOrigins, ["https://app.example", "http://localhost:3000"]);
    assert.equal(config.metricsPublic, true);
    assert.equal(config.limits.maxBodyBytes, 2048);
    assert.equal(config.limits.heartbeatMs, 1000);
  });

  test("names the key that is wrong", () => {
    for (const [name, value, key] of [
      ["AGENTMESH_GATEWAY__TRUSTED_PROXIES", "proxy.example", "gateway.trusted_proxies"],
      ["AGENTMESH_GATEWAY__CORS_ORIGINS", "app.example", "gateway.cors_origins"],
      ["AGENTMESH_GATEWAY__MAX_BODY_BYTES", "0", "gateway.max_body_bytes"],
      ["AGENTMESH_GATEWAY__REPLICAS", "0", "gateway.replicas"],
      ["AGENTMESH_GATEWAY__RATES__KEY_RUNS", "-1", "gateway.rates.key_runs"],
    ] as const) {
      assert.throws(
        () => read({ [name]: value }),
        (error) => error instanceof ConfigError && error.message.includes(key),
      );
    }
  });

  test("documents every key", () => {
    for (const { key, doc } of describeConfig(readGatewayConfig)) assert.ok(doc.length > 10, key);
  });
});

describe("the gateway module", () => {
  test("has a listener for the port, drains and stops", async () => {
    const log = createLog({ level: "silent", service: "test" });
    await using mesh = await openTestMesh("memory", {});
    await using bus = new EmbeddedBus({ log });
    // What a gateway takes of its process; the rest of the platform it never touches.
    const platform = {
      mode: "embedded",
      log,
      metrics: createMetrics({ process: false }),
      bus,
      links: mesh.links("edge"),
      components: [],
      health: { ready: () => true, services: () => [], onChange: () => () => {} },
    } as unknown as Platform;
    const running = gateway.create(read({}), platform);
    await running.start?.(new AbortController().signal);
    const port = await openPort({ host: "127.0.0.1", port: 0, listener: running.listener });
    const statusOf = async (path: string) => (await fetch(`http://127.0.0.1:${port.port}${path}`)).status;
    assert.equal(running.ready?.(), true);
    assert.equal(await statusOf("/health/ready"), 200);
    assert.equal(await statusOf("/api/v1/sessions"), 401);
    const metrics = await (await fetch(`http://127.0.0.1:${port.port}/metrics`)).text();
    assert.match(metrics, /rpc_server_requests_total\{.*method="ListSessions",code="unauthenticated"\} 1/);
    await running.drain?.(AbortSignal.timeout(5_000));
    assert.equal(running.ready?.(), false);
    assert.equal(await statusOf("/health/ready"), 503);
    await running.stop?.();
    await port.close(0);
  });
});
