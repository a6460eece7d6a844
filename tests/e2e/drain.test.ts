import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { says } from "#platform/testing/model-server/turn.ts";
import { startMesh } from "./mesh-under-test.ts";
import { RestClient } from "./rest-client.ts";

describe("SIGTERM", () => {
  test("lets a turn in flight end, refuses new ones, and exits with 0", async () => {
    const mesh = await startMesh("embedded");
    try {
      const rest = new RestClient(mesh.baseUrl, mesh.adminKey);
      const seen: string[] = [];
      const all = mesh.processes.get("all");
      let stopped: Promise<number | null> | undefined;
      let refused: Promise<number> | undefined;
      const message = "[[slow 30]] [[deltas 100]] Tell me something that takes three seconds or so.";
      for await (const { event } of rest.stream("POST", "/api/v1/chat/stream", { message })) {
        seen.push(event ?? "");
        if (seen.length !== 5) continue;
        stopped = all?.stop();
        refused = firstRefusal(rest);
      }
      assert.equal(seen.at(-1), "final", "the turn ended by itself");
      assert.ok(seen.length > 20, "and it went on after the signal");
      assert.notEqual(await refused, 200, "while it drains it is not ready");
      assert.equal(await stopped, 0);
    } finally {
      await mesh.stop();
    }
  });

  test("hands what outlasts the grace over to another replica, which goes on with it at once", async () => {
    const mesh = await startMesh("distributed", { AGENTMESH_SERVER__STOP_GRACE: "500ms" });
    try {
      const rest = new RestClient(mesh.baseUrl, mesh.adminKey);
      mesh.model.script({ ...says("one two three four five six ".repeat(20)), paceMs: 200 }, says("And that was it."));
      const { body } = await rest.call("POST", "/api/v1/runs", { message: "on and on" });
      const { run_id: runId, session_id: sessionId } = body.run;
      assert.equal(await mesh.processes.get("agent")?.stop(), 0);
      const other = new RestClient((await mesh.gatewayTo("agent-2")).baseUrl, mesh.adminKey);
      for await (const { data } of other.stream("GET", `/api/v1/runs/${runId}/events:stream`)) void data;
      const { body: run } = await other.call("GET", `/api/v1/runs/${runId}`);
      assert.deepEqual([run.state, run.response], ["RUN_STATE_COMPLETED", "And that was it."]);
      assert.equal(run.attempt, 1, "a hand-over is no failed attempt");
      mesh.model.script(says("Here."));
      const again = await other.call("POST", "/api/v1/chat", { message: "still there?", session_id: sessionId });
      assert.equal(again.status, 200);
    } finally {
      await mesh.stop();
    }
  });
});

/** What readiness answers once it is no longer 200; 0 when nobody answers any more. */
async function firstRefusal(rest: RestClient): Promise<number> {
  const deadline = performance.now() + 2_000;
  for (;;) {
    const status = await rest.call("GET", "/health/ready").then(
      (answer) => answer.status,
      () => 0,
    );
    if (status !== 200 || performance.now() > deadline) return status;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
