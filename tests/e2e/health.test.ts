import assert from "node:assert/strict";
import { test } from "node:test";
import { fails } from "#platform/testing/model-server/turn.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

/** Failures in a row that open a breaker. */
const FAILURES = 5;

describeMesh("a model that fails, in the health report", (mesh) => {
  test("makes the process that runs agents degraded, and nothing unready or dead", async () => {
    const rest = new RestClient(mesh().baseUrl, mesh().adminKey);
    // Whose breakers they are: in one process the gateway's page, between processes that of the agent's own.
    const { baseUrl } = mesh().processes.get("agent") ?? mesh().processes.get("all") ?? assert.fail("no agent");
    const own = new RestClient(baseUrl, undefined);
    const before = await own.call("GET", "/health");
    assert.deepEqual(
      [before.status, before.body.status, before.body.components.model.status],
      [200, "healthy", "healthy"],
    );

    // At once, so that nobody waits for a retry: once the breaker is open, there is none.
    mesh().model.when({}, ...Array.from({ length: FAILURES }, () => fails(500)));
    const answers = await Promise.all(
      Array.from({ length: FAILURES }, () => rest.call("POST", "/api/v1/chat", { message: "hi" })),
    );
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([503]));
    assert.equal(mesh().model.pending(), 0);

    // An examination counts for a second.
    let health = await own.call("GET", "/health");
    for (const end = performance.now() + 5_000; health.body.status === "healthy" && performance.now() < end; ) {
      health = await own.call("GET", "/health");
    }
    assert.deepEqual(
      [health.status, health.body.status, health.body.components.model.status],
      [200, "degraded", "degraded"],
    );
    assert.equal((await own.call("GET", "/health/ready")).status, 200);
    assert.equal((await own.call("GET", "/health/live")).status, 200);

    const metrics = await own.call("GET", "/metrics");
    assert.equal(metrics.status, 200);
    assert.match(metrics.body, /rpc_server_requests_total\{service="agentmesh\.agent\.v1\.ChatService",method="Chat"/);

    if (mesh().mode === "distributed") {
      const gateway = await rest.call("GET", "/health");
      assert.equal(gateway.body.status, "healthy");
      assert.equal(gateway.body.components.model, undefined, "of other processes the gateway says nothing");
    }
  });
});
