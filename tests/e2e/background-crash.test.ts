import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { MODULES } from "#mesh/modules.ts";
import { skipWithout } from "#platform/testing/missing-server.ts";
import { startModelServer } from "#platform/testing/model-server/server.ts";
import { natsUrlVariable, privateNats } from "#platform/testing/private-nats.ts";
import { skipWithoutPostgres, testDatabase } from "#platform/testing/private-postgres.ts";
import { newAdminKey } from "./admin-key.ts";
import { RestClient } from "./rest-client.ts";
import { spawnMesh } from "./spawned-process.ts";

/** Where a process that begins a queued run can die: nothing done, its try counted, all but committed, committed. */
const STEPS = [
  "activation.before-claim",
  "activation.after-claim",
  "run-begin.before-store",
  "activation.before-launch",
];
const WITHIN_MS = 30_000;

const SETTINGS = {
  AGENTMESH_AGENT__LEASE: "1s",
  AGENTMESH_AGENT__HEARTBEAT: "300ms",
  AGENTMESH_AGENT__REAPER_INTERVAL: "200ms",
  AGENTMESH_AGENT__QUEUE__ORPHAN_AFTER: "1s",
  AGENTMESH_AGENT__QUEUE__SWEEP_INTERVAL: "200ms",
};

for (const bus of ["embedded", "NATS"] as const) {
  const skip = skipWithoutPostgres() || (bus === "NATS" && skipWithout("nats-server", natsUrlVariable));
  describe(`a process that is killed with -9 while it begins a queued run (${bus} bus)`, { skip }, () => {
    test("loses nothing: the run is begun once, and done", { timeout: 240_000 }, async () => {
      await using undo = new AsyncDisposableStack();
      const model = undo.use(await startModelServer());
      const services = Object.values(MODULES).flatMap(({ module: { schema } }) =>
        schema === undefined ? [] : [{ schema: schema.name, dir: fileURLToPath(schema.migrations) }],
      );
      const database = undo.use(await testDatabase({ services }));
      const nats = bus === "NATS" ? undo.use(await privateNats({ own: true })) : undefined;
      const dataDir = await mkdtemp(join(tmpdir(), "crash-"));
      undo.defer(() => rm(dataDir, { recursive: true, force: true }));
      const adminKey = newAdminKey();
      const start = (failpoints: string) =>
        spawnMesh("all", {
          ...SETTINGS,
          AGENTMESH_DATA_DIR: dataDir,
          AGENTMESH_ADMIN_KEY: adminKey,
          ANTHROPIC_API_KEY: "test-key",
          ANTHROPIC_BASE_URL: model.url,
          DATABASE_URL: database.url,
          ...(nats !== undefined && { NATS_URL: nats.url }),
          ...(failpoints !== "" && { AGENTMESH_FAILPOINTS: failpoints }),
        });

      const runs: string[] = [];
      for (const step of STEPS) {
        // What the one before has left may be what this one dies of.
        const process = await start(`${step}:kill@1`);
        const rest = new RestClient(process.baseUrl, adminKey);
        const wish = { message: "go", background: true, request_id: randomUUID() };
        const answer = await rest.call("POST", "/api/v1/runs", wish).catch(() => undefined);
        if (answer?.status === 200) runs.push(answer.body.run.run_id);
        const exit = await Promise.race([process.exited, sleep(WITHIN_MS)]);
        assert.equal(exit?.signal, "SIGKILL", `${step} was reached`);
      }
      assert.ok(runs.length > 0, "some were acknowledged");

      const process = await start("");
      undo.defer(async () => void (await process.stop()));
      const rest = new RestClient(process.baseUrl, adminKey);
      for (const runId of runs) {
        const until = Date.now() + WITHIN_MS;
        let run = (await rest.call("GET", `/api/v1/runs/${runId}`)).body;
        while (run.state !== "RUN_STATE_COMPLETED" && Date.now() < until) {
          await sleep(100);
          run = (await rest.call("GET", `/api/v1/runs/${runId}`)).body;
        }
        assert.equal(run.state, "RUN_STATE_COMPLETED", JSON.stringify(run));
        const { events } = (await rest.call("GET", `/api/v1/runs/${runId}/events?page_size=200`)).body;
        const count = (type: string) => events.filter((event: { type: string }) => event.type === type).length;
        assert.deepEqual([count("run_started"), count("run_completed")], [1, 1]);
        const { messages } = (await rest.call("GET", `/api/v1/sessions/${run.session_id}/messages`)).body;
        assert.equal(messages.length, 2);
      }
    });
  });
}
