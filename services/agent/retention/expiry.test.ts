import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { says } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { playRun } from "../testing/play-run.ts";
import { assertWellFormed, durable, read } from "../testing/watching.ts";
import { Expiry } from "./expiry.ts";

const silent = createLog({ level: "silent", service: "test" });
const never = new AbortController().signal;
const DAY_MS = 86_400_000;

describe("what is kept for a time", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({
      agent: { lease: "10s", heartbeat: "1s", retention_interval: "24h", erase_after: "365d" },
    });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.resolved = { retention: { sessionDays: 7, runEventDays: 30 } };
  });

  const rows = (sql: string, params: unknown[] = []) => mesh.db.tenant(me.tenantId, (tx) => tx.query(sql, params));
  const round = (options: { database?: Database; events?: number } = {}) =>
    new Expiry({ database: mesh.db, log: silent, onExpired: () => {}, onPruned: () => {}, ...options }).round(never);
  /** As if the time of all rows of a table of mine had passed. */
  const pass = (table: string) => rows(`UPDATE agent.${table} SET expire_time = clock_timestamp() - interval '1 ms'`);
  const auditOf = async (type: string) => (await rows("SELECT FROM agent.audit WHERE type = $1", [type])).length;
  /** A run with some events whose log is pruned, and what its log was. */
  async function prunedRun(request: { sessionId?: string } = {}) {
    mesh.model.script(says("Yes."));
    const played = await playRun(mesh, me, request);
    await pass("runs");
    await round();
    return played;
  }

  test("a turn stamps the tenant's policy on its session and its run, and a session is kept to the end of a day", async () => {
    const { sessionId, runId } = await playRun(mesh, me);
    const expiry = async () => {
      const [session] = await rows("SELECT expire_time AS time FROM agent.sessions WHERE session_id = $1", [sessionId]);
      return session?.["time"] as Date | null;
    };
    const inDays = ((await expiry())?.getTime() ?? 0) - Date.now();
    assert.ok(inDays > 7 * DAY_MS && inDays <= 8 * DAY_MS, `${inDays}`);
    const [run] = await rows("SELECT expire_time - create_time AS kept FROM agent.runs WHERE run_id = $1", [runId]);
    assert.match(JSON.stringify(run), /"days":30|30 days/);
    mesh.neighbours.resolved = { retention: { sessionDays: 0, runEventDays: 1 } };
    await playRun(mesh, me, { sessionId });
    assert.equal(await expiry(), null, "kept for good from the next turn on");
  });

  test("a session whose time is over is deleted, audited and erased; one in use, and one with time left, are not", async () => {
    const { sessionId } = await playRun(mesh, me);
    const busy = await mesh.one.runs.startRun({ message: "[[hang]]" }, callAs(me));
    await pass("sessions");
    const { sessionId: young } = await playRun(mesh, me);
    await round();
    assert.equal((await refusal(mesh.one.sessions.getSession({ sessionId }, callAs(me)))).reason, "RESOURCE_NOT_FOUND");
    const { sessions } = await mesh.one.sessions.listSessions({}, callAs(me));
    assert.deepEqual(
      sessions.map((session) => session.sessionId),
      [young, busy.run?.sessionId],
    );
    assert.equal(await auditOf("session.expired"), 1);
    await mesh.one.runs.cancelRun({ runId: busy.run?.runId ?? "" }, callAs(me));
    await Promise.all([round(), round()]);
    assert.equal(await auditOf("session.expired"), 2, "once, by whichever was first");
  });

  test("events of an ended run are pruned but for the last one; a run at work keeps all of its", async () => {
    const { runId, stored } = await playRun(mesh, me);
    const live = await mesh.one.runs.startRun({ message: "[[hang]]" }, callAs(me));
    await pass("runs");
    await round();
    const left = await rows("SELECT run_id, seq::text FROM agent.run_events WHERE run_id = $1", [runId]);
    assert.deepEqual(left, [{ run_id: runId, seq: String(stored.at(-1)?.seq) }]);
    const [run] = await rows("SELECT pruned_seq::text, expire_time, plan_id FROM agent.runs WHERE run_id = $1", [
      runId,
    ]);
    assert.deepEqual(run, { pruned_seq: String(stored.at(-1)?.prevSeq), expire_time: null, plan_id: null });
    const reading = read(mesh.one, me, live.run?.runId ?? "");
    await mesh.one.runs.cancelRun({ runId: live.run?.runId ?? "" }, callAs(me));
    assert.equal(await reading.ended, undefined);
    assert.ok(!reading.frames.some((frame) => frame.case === "snapshot"));
    assertWellFormed(durable(reading.events));
  });

  test("who asks from before what is kept gets a snapshot, and what follows is chained to it, from any cursor", async () => {
    const { runId, sessionId, stored } = await prunedRun();
    const end = stored.at(-1);
    assert.ok(end !== undefined);
    for (const { seq } of [{ seq: 0n }, ...stored]) {
      const reading = read(mesh.one, me, runId, { afterSeq: seq });
      assert.equal(await reading.ended, undefined);
      const kinds = reading.frames.map((frame) => frame.case);
      const [first] = reading.frames;
      if (seq < end.prevSeq) {
        assert.deepEqual(kinds, ["snapshot", "event", "caughtUp"], `${seq}`);
        assert.ok(first?.case === "snapshot");
        const { run, session, messages, asOfSeq } = first.value;
        assert.deepEqual([run?.runId, session?.sessionId, messages.length], [runId, sessionId, 2]);
        assert.equal(asOfSeq, end.prevSeq);
      } else {
        assert.deepEqual(kinds, seq < end.seq ? ["event", "caughtUp"] : ["caughtUp"], `${seq}`);
      }
      assert.deepEqual(reading.events, seq < end.seq ? [end] : []);
      const page = await mesh.one.runs.listRunEvents({ runId, afterSeq: seq }, callAs(me));
      assert.deepEqual(page.events, seq < end.seq ? [end] : []);
      assert.equal(page.snapshot?.asOfSeq, seq < end.prevSeq ? end.prevSeq : undefined);
    }
    const late = read(mesh.one, me, runId, { liveOnly: true });
    assert.equal(await late.ended, undefined);
    assert.deepEqual(late.events, [end]);
  });

  test("a repeated ChatStream of a pruned run gives the final answer", async () => {
    const requestId = randomUUID();
    mesh.model.script(says("Forty-two."));
    const stream = async () => {
      const events = [];
      for await (const { event } of mesh.one.chat.chatStream({ message: "?", requestId }, callAs(me)))
        events.push(event);
      return events;
    };
    const first = await stream();
    await pass("runs");
    await round();
    const again = await stream();
    assert.deepEqual(again.at(-1), first.at(-1));
    assert.equal(again.at(-1)?.payload.case, "final");
    assert.equal((await mesh.one.chat.chat({ message: "?", requestId }, callAs(me))).response, "Forty-two.");
  });

  test("a process that is lost while it prunes leaves no silent hole, and another one goes on", async () => {
    mesh.model.script(says("Yes."));
    const { runId, stored } = await playRun(mesh, me);
    await pass("runs");
    let left = 2;
    const failing: Database = {
      ...mesh.db,
      async tenant(tenantId, fn, options) {
        if (--left < 0) throw new Error("lost");
        return mesh.db.tenant(tenantId, fn, options);
      },
    };
    await round({ database: failing, events: 1 });
    const reading = read(mesh.one, me, runId);
    assert.equal(await reading.ended, undefined);
    assert.equal(reading.frames[0]?.case, "snapshot");
    assert.deepEqual(reading.events, stored.slice(-1));
    await round({ events: 1 });
    assert.equal((await rows("SELECT FROM agent.run_events WHERE run_id = $1", [runId])).length, 1);
  });

  test("answers to repeats go after a day, and plans when no run has them and nobody takes them for stored", async () => {
    const requestId = randomUUID();
    mesh.model.script(says("Yes."));
    await mesh.one.chat.chat({ message: "hi", requestId }, callAs(me));
    const left = async () => [
      (await rows("SELECT FROM agent.idempotency_keys")).length,
      (await rows("SELECT FROM agent.plans")).length,
    ];
    await round();
    assert.deepEqual(await left(), [1, 1]);
    await rows("UPDATE agent.idempotency_keys SET created_at = created_at - interval '25 hours'");
    await rows("UPDATE agent.plans SET create_time = create_time - interval '25 hours'");
    await round();
    assert.deepEqual(await left(), [0, 1], "a run has it");
    await pass("runs");
    await round();
    assert.deepEqual(await left(), [0, 0]);
    mesh.model.script(says("Yes."));
    assert.equal((await mesh.one.chat.chat({ message: "hi", requestId }, callAs(me))).response, "Yes.");
  });

  test("the job of a running service says what it has done", async () => {
    await using running = await openAgentMesh({ agent: { retention_interval: "200ms", erase_interval: "1h" } });
    running.neighbours.resolved = { retention: { sessionDays: 7, runEventDays: 30 } };
    running.model.script(says("Yes."));
    await playRun(running, me);
    const expire = (table: string) =>
      running.db.tenant(me.tenantId, (tx) => tx.execute(`UPDATE agent.${table} SET expire_time = clock_timestamp()`));
    await expire("runs");
    await waitFor(async () => (await running.one.metrics.text()).includes("agent_run_logs_pruned_total{"));
    await expire("sessions");
    await waitFor(async () => (await running.one.metrics.text()).includes("agent_sessions_erased_total{"));
    const said = running.one.logged.filter(({ event }) => event === "agent.expired");
    assert.deepEqual(
      said.map(({ resource, count }) => [resource, count]),
      [
        ["runs", 1],
        ["sessions", 1],
      ],
    );
  });
});

async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + 20_000;
  while (!(await condition())) {
    assert.ok(performance.now() < until, "did not happen in time");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
