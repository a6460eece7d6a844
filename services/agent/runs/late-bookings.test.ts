import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { ModelCallPurpose } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { UsageSummarySchema } from "#gen/agentmesh/common/v1/usage_pb.ts";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import { dependencyDown } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { says } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { insertCalls, type LedgerEntry, ledgerOf } from "../store/ledger-store.ts";
import { runById } from "../store/run-store.ts";
import { type AgentMesh, openAgentMesh, warmUp } from "../testing/agent-mesh.ts";
import { driveRun } from "../testing/driven-run.ts";
import { deltas, read } from "../testing/watching.ts";
import { LateBookings, MOST_LATE_CALLS } from "./late-bookings.ts";
import { finishRun } from "./run-end.ts";
import { UsageTotal } from "./usage-total.ts";

function call(inputTokens: bigint): LedgerEntry {
  const tokens = { inputTokens, cacheReadTokens: 2n, cacheWriteTokens: 3n, outputTokens: 4n, costNanoUsd: 5n };
  const model = { provider: "anthropic", model: "m", purpose: ModelCallPurpose.TURN };
  return { entryId: newId("use"), ...model, ...tokens, aborted: true, ownCredential: false };
}

describe("what an owner paid for and could not book", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, agent: { max_attempts: "3" } });
    await warmUp(mesh);
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    for (const replica of mesh.replicas) replica.wake();
  });

  const entriesOf = (runId: string) => mesh.db.tenant(me.tenantId, (tx) => ledgerOf(tx, runId));
  const usageOf = async (runId: string) => {
    const row = await mesh.db.tenant(me.tenantId, (tx) => runById(tx, runId));
    return row?.usage ? fromBinary(UsageSummarySchema, row.usage) : undefined;
  };

  function bookings(database: Database = mesh.db) {
    const lines: Record<string, unknown>[] = [];
    const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
    const log = createLog({ level: "error", service: "test", destination });
    return { late: new LateBookings({ database, log, retryMs: 10 }), lines };
  }

  test("is in the ledger once, of a run that goes on, is over, or is gone", async () => {
    const { late, lines } = bookings();
    const run = await driveRun(mesh, mesh.one, me);
    const { ids } = run.log;
    const booking = { tenantId: me.tenantId, ids, calls: [call(10n), call(20n)] };
    late.add(booking);
    late.add(booking);
    late.add({ ...booking, calls: [] });
    await until(() => late.size === 0, "the first ones");
    assert.equal((await entriesOf(run.runId)).length, 2);
    assert.equal(await usageOf(run.runId), undefined, "its owner says at its end what it has used");
    await run.end();
    late.add({ ...booking, calls: [call(40n)] });
    await until(() => late.size === 0, "the late one");
    const usage = await usageOf(run.runId);
    assert.equal(usage?.inputTokens, 70n);
    assert.equal(usage?.outputTokens, 12n);
    assert.equal(usage?.costNanoUsd, 15n);
    const gone = { ...ids, runId: newId("run") };
    late.add({ ...booking, ids: gone, calls: [call(7n)] });
    await until(() => late.size === 0, "those of a run that was erased");
    assert.equal((await entriesOf(gone.runId)).length, 1);
    assert.deepEqual(lines, []);
    await late.stop();
  });

  test("waits for a database that is away, and is told to the log when this process ends first", async () => {
    let isAway = true;
    const flaky: Database = {
      ...mesh.db,
      tenant: (...args) => (isAway ? Promise.reject(dependencyDown("postgres")) : mesh.db.tenant(...args)),
    };
    const { late, lines } = bookings(flaky);
    const run = await driveRun(mesh, mesh.one, me);
    run.drop();
    const booking = { tenantId: me.tenantId, ids: run.log.ids, calls: [call(10n)] };
    late.add(booking);
    await sleep(50);
    assert.equal(late.size, 1);
    isAway = false;
    await until(() => late.size === 0, "the database to be back");
    assert.equal((await entriesOf(run.runId)).length, 1);
    isAway = true;
    late.add({ ...booking, calls: [call(33n)] });
    await late.stop();
    const [line] = lines;
    assert.deepEqual([lines.length, line?.["event"], line?.["run_id"]], [1, "agent.usage.not_booked", run.runId]);
    assert.match(JSON.stringify(line?.["details"]), /"input_tokens":"33"/);
    late.add(booking);
    assert.equal(lines.length, 2, "nobody would book it any more");
  });

  test("is bounded while it waits", async () => {
    const away: Database = { ...mesh.db, tenant: () => Promise.reject(dependencyDown("postgres")) };
    const { late, lines } = bookings(away);
    const ids = { runId: newId("run"), sessionId: newId("ses"), agentId: "agt_1" };
    const one = call(1n);
    late.add({ tenantId: me.tenantId, ids, calls: Array<LedgerEntry>(MOST_LATE_CALLS).fill(one) });
    assert.deepEqual([late.size, lines.length], [MOST_LATE_CALLS, 0]);
    late.add({ tenantId: me.tenantId, ids, calls: [one] });
    assert.deepEqual([late.size, lines.length], [MOST_LATE_CALLS, 1]);
    await late.stop();
    assert.equal(late.size, 0);
  });

  test("while another's end was being written: the run's usage is the sum of the rows that are there then", async () => {
    const run = await driveRun(mesh, mesh.one, me);
    const { tenantId } = me;
    const [early, own] = [call(10n), call(20n)];
    await mesh.db.tenant(tenantId, (tx) => insertCalls(tx, { ...run.log.ids, endUserId: "" }, [early]));
    run.log.book(own);
    const row = await mesh.db.tenant(tenantId, (tx) => runById(tx, run.runId));
    assert.ok(row !== undefined);
    const usage = new UsageTotal();
    usage.add(own);
    const end = { kind: "cancelled", cause: "caller" } as const;
    await finishRun(run.log, end, { usage: usage.summary(), call: run.call, run: row, shared: true });
    assert.equal((await usageOf(run.runId))?.inputTokens, 30n);
    run.drop();
  });

  test("by an owner that stood still: its broken call is booked when it wakes, and the usage is the sum again", async () => {
    const usage = { input_tokens: 100, output_tokens: 200 };
    mesh.model.script(
      { ...says("one two three four five ".repeat(100)), paceMs: 20, usage },
      { ...says("Done."), usage: { input_tokens: 11, output_tokens: 5 } },
    );
    const { run } = await mesh.one.runs.startRun({ message: "go" }, callAs(me));
    const { runId = "" } = run ?? {};
    const reading = read(mesh.one, me, runId);
    await reading.until(() => deltas(reading).length > 2, "text");
    mesh.one.freeze();
    const there = read(mesh.two, me, runId);
    assert.equal(await there.ended, undefined);
    assert.equal((await entriesOf(runId)).length, 1, "the old owner cannot write");
    mesh.one.wake();
    while ((await entriesOf(runId)).length < 2) await sleep(20);
    const entries = await entriesOf(runId);
    assert.deepEqual(entries.map(({ aborted }) => aborted).toSorted(), [false, true]);
    assert.deepEqual(entries.map(({ inputTokens }) => inputTokens).toSorted(), [100n, 11n]);
    const { run: ended } = await mesh.two.runs.getRun({ runId }, callAs(me));
    assert.equal(ended?.usage?.inputTokens, 111n);
  });

  test("by an owner whose run was taken while it worked: what it had cost is in the end that the other writes", async () => {
    mesh.model.script(
      { ...says("one two three four five ".repeat(100)), paceMs: 20, usage: { input_tokens: 100, output_tokens: 200 } },
      { ...says("Done. ".repeat(20)), paceMs: 60, usage: { input_tokens: 11, output_tokens: 5 } },
    );
    const { run } = await mesh.one.runs.startRun({ message: "go" }, callAs(me));
    const { runId = "" } = run ?? {};
    const reading = read(mesh.one, me, runId);
    await reading.until(() => deltas(reading).length > 2, "text");
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute(
        "UPDATE agent.runs SET owner = 'ins_gone', epoch = 9, lease_expires = clock_timestamp() WHERE run_id = $1",
        [runId],
      ),
    );
    const there = read(mesh.two, me, runId);
    assert.equal(await there.ended, undefined);
    const end = there.events.at(-1)?.payload;
    assert.ok(end?.case === "runCompleted");
    assert.equal(end.value.usage?.inputTokens, 111n);
    assert.deepEqual((await entriesOf(runId)).map(({ inputTokens }) => inputTokens).toSorted(), [100n, 11n]);
  });
});
