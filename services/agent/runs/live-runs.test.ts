import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { principalOf } from "#platform/testing/service-under-test.ts";
import { LeaseLost } from "../errors.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { type DrivenRun, driveRun } from "../testing/driven-run.ts";
import { LiveRuns } from "./live-runs.ts";

const log = createLog({ level: "silent", service: "test" });

describe("the runs of a process", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  before(async () => {
    mesh = await openAgentMesh({ agent: { lease: "5m", heartbeat: "1m", reaper_interval: "1m" } });
  });
  after(() => mesh[Symbol.asyncDispose]());
  // Also those of a test that failed: their heartbeat would keep the process alive.
  const opened: LiveRuns[] = [];
  afterEach(() => Promise.all(opened.splice(0).map((runs) => runs.stop())));

  interface Held {
    runs: LiveRuns;
    run: DrivenRun;
    controller: AbortController;
    finish(): void;
  }

  async function hold(database: Database, { leaseMs = 60_000, leasedAt = performance.now() } = {}): Promise<Held> {
    const run = await driveRun(mesh, mesh.one, principalOf(newId("ten"), TENANT_SCOPES));
    run.drop();
    const runs = new LiveRuns({ database, owner: mesh.one.instanceId, leaseMs, heartbeatMs: 20, log });
    opened.push(runs);
    const finished = Promise.withResolvers<void>();
    const controller = new AbortController();
    runs.add({ log: run.log, controller, finished: finished.promise, leasedAt });
    return { runs, run, controller, finish: () => finished.resolve() };
  }

  test("are found under their own tenant only, and not when they have ended", async () => {
    const { runs, run, finish } = await hold(mesh.db);
    const { tenantId } = run.call.principal;
    assert.ok(runs.get(tenantId, run.runId) !== undefined);
    assert.equal(runs.get(newId("ten"), run.runId), undefined);
    await run.end();
    assert.equal(runs.get(tenantId, run.runId), undefined);
    assert.equal(runs.size, 1, "until its work has ended");
    finish();
    await until(() => runs.size === 0, "it to be forgotten");
  });

  test("keep their leases by a heartbeat, for as long as they last", async () => {
    const { runs, run, controller } = await hold(mesh.db, { leaseMs: 500 });
    runs.start();
    await sleep(1_200);
    assert.equal(controller.signal.aborted, false);
    const [row] = await mesh.db.tenant(run.call.principal.tenantId, (tx) =>
      tx.query<{ held: boolean }>("SELECT lease_expires > clock_timestamp() AS held FROM agent.runs"),
    );
    assert.ok(row?.held);
    await runs.stop();
  });

  test("are given up, by this process's own clock, when no heartbeat gets through", async () => {
    for (const tenant of ["refused", "silent"]) {
      const away: Database = {
        ...mesh.db,
        worker: async (_, options) => {
          if (tenant === "silent") await sleep(60_000, undefined, { signal: options?.signal as AbortSignal });
          throw new Error("away");
        },
      };
      const { runs, run, controller } = await hold(away, { leaseMs: 150 });
      using reader = run.log.feed.subscribe();
      runs.start();
      await until(() => controller.signal.aborted, "the run to be given up");
      assert.ok(controller.signal.reason instanceof LeaseLost);
      assert.equal(reader.queue.ended, "closed");
      assert.equal(runs.size, 0);
      await runs.stop();
    }
  });

  test("are given up when another process has taken them, and only then", async () => {
    const { runs, run, controller } = await hold(mesh.db);
    await runs.beat();
    assert.equal(controller.signal.aborted, false);
    await mesh.db.tenant(run.call.principal.tenantId, (tx) => tx.execute("UPDATE agent.runs SET epoch = epoch + 1"));
    await runs.beat();
    assert.ok(controller.signal.reason instanceof LeaseLost);
  });

  test("are given up when this process itself takes them with the next epoch, and the new one is kept", async () => {
    const { runs, run, controller, finish } = await hold(mesh.db);
    const next = { log: run.log, controller: new AbortController(), finished: new Promise<void>(() => {}) };
    runs.add({ ...next, leasedAt: performance.now() });
    assert.ok(controller.signal.reason instanceof LeaseLost);
    finish();
    await sleep(10);
    assert.deepEqual(
      runs.all().map(({ controller: { signal } }) => signal.aborted),
      [false],
    );
  });

  test("count their lease from before it was taken", async () => {
    const away: Database = { ...mesh.db, worker: () => Promise.reject(new Error("away")) };
    const { runs, controller } = await hold(away, { leaseMs: 1_000, leasedAt: performance.now() - 1_001 });
    await runs.beat();
    assert.ok(controller.signal.aborted);
  });
});
