import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunOutcome, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { dependencyDown } from "#platform/rpc/errors.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithoutPostgres, type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import { LeaseLost } from "../errors.ts";
import { claimExpired, renewLeases } from "../store/lease-store.ts";
import { eventsAfter, runById, SEQ_BLOCK } from "../store/run-store.ts";
import { beginRun } from "../store/run-writes.ts";
import { sessionById } from "../store/session-store.ts";
import type { EventBody } from "./event-envelope.ts";
import { Reaper } from "./reaper.ts";
import { finishRun } from "./run-end.ts";
import { RunLog } from "./run-log.ts";
import { UsageTotal } from "./usage-total.ts";

const services = [{ schema: "agent", dir: fileURLToPath(new URL("../store/migrations", import.meta.url)) }];
const text = (value: string): EventBody => ({
  itemId: "msg_a",
  payload: { case: "textDelta", value: { text: value } },
});
const note = (reason: string): EventBody => ({ payload: { case: "notice", value: { reason } } });

describe("the log of a run", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  const tenantId = newId("ten");
  const principal = { tenantId, subject: "key_1", scopes: [], credentialId: "key_1", actors: [] };
  const signal = new AbortController().signal;
  const call = { principal, signal, requestId: "req_1", ip: "203.0.113.9", userAgent: "test/1" };
  const context = {
    usage: new UsageTotal().summary(),
    call,
    run: { background: false, end_user_id: "", state: RunState.RUNNING },
  };
  before(async () => {
    database = await testDatabase({ services });
  });
  after(() => database.drop());

  interface NewRun {
    log: RunLog;
    runId: string;
    sessionId: string;
    shown: AgentEvent[];
  }

  async function newRun(leaseMs = 60_000, through: Database = database.db): Promise<NewRun> {
    const sessionId = newId("ses");
    const runId = newId("run");
    const lease = { owner: "ins_a", ownerAddress: "http://a", leaseMs };
    const run = await database.db.tenant(tenantId, (tx) =>
      beginRun(tx, {
        run: { runId, endUserId: "", agentId: "agt_1", agentVersion: 1, principal, ...lease },
        session: { created: { sessionId, agentId: "" } },
        messages: [],
        events: [],
        openStep: 0,
        audited: { call, events: [] },
      }),
    );
    const log = new RunLog({
      database: through,
      fence: { tenantId, runId, owner: run.owner, epoch: run.epoch },
      ids: { runId, sessionId, agentId: "agt_1" },
      lastDurableSeq: 0n,
      nextSeq: 1n,
      retryForMs: 1_000,
      onCommitted: () => {},
    });
    const shown: AgentEvent[] = [];
    const push = log.feed.push.bind(log.feed);
    log.feed.push = (event) => {
      shown.push(event);
      push(event);
    };
    return { log, runId, sessionId, shown };
  }

  const stored = async (runId: string) =>
    (await database.db.tenant(tenantId, (tx) => eventsAfter(tx, runId, 0n, 1_000))).map((bytes) =>
      fromBinary(AgentEventSchema, bytes),
    );

  test("shows a preview at once and a durable event only when it is committed, in the order of appending", async () => {
    const { log, runId, shown } = await newRun();
    log.transient(text("a"));
    assert.equal(shown.length, 1);
    log.append({ body: note("one") });
    log.transient(text("b"));
    log.append({ body: note("two") });
    assert.equal(shown.length, 1, "what waits for a commit is not shown, and neither is what comes after it");
    await log.flush();
    assert.deepEqual(
      shown.map(({ type, seq }) => [type, seq]),
      [
        ["text_delta", 1n],
        ["notice", 2n],
        ["text_delta", 3n],
        ["notice", 4n],
      ],
    );
    assert.deepEqual(
      await stored(runId),
      shown.filter(({ retention }) => retention === Retention.DURABLE),
    );
  });

  test("chains durable events by prev_seq over every gap that previews leave", async () => {
    const { log, runId } = await newRun();
    for (let i = 0; i < 20; i++) {
      for (let j = 0; j < i % 3; j++) log.transient(text("x"));
      log.append({ body: note(String(i)) });
      if (i % 4 === 0) await log.flush();
    }
    await log.flush();
    let previous = 0n;
    for (const { prevSeq, seq } of await stored(runId)) {
      assert.equal(prevSeq, previous);
      previous = seq;
    }
    const row = await database.db.tenant(tenantId, (tx) => runById(tx, runId));
    assert.equal(row?.last_seq, previous);
  });

  test("stores what belongs to an event in its transaction, or neither", async () => {
    const { log, runId } = await newRun();
    log.append({
      body: note("doomed"),
      within: async () => {
        throw new Error("no");
      },
    });
    await assert.rejects(log.flush(), /no/);
    assert.deepEqual(await stored(runId), []);
    assert.throws(() => log.check(), /no/);
  });

  test("a commit whose outcome is unknown is found out, and neither lost nor repeated", async () => {
    for (const outcome of ["committed", "commits later", "lost"]) {
      let tries = 0;
      const later: Promise<unknown>[] = [];
      const unsure: Database = {
        ...database.db,
        async tenant(tenant, fn, options) {
          if (++tries > 1) return database.db.tenant(tenant, fn, options);
          if (outcome === "committed") await database.db.tenant(tenant, fn);
          // The server is still busy with the transaction that its client has given up.
          const slowly = async (tx: Tx) => fn(tx).then(() => sleep(150));
          if (outcome === "commits later") later.push(database.db.tenant(tenant, slowly));
          if (outcome === "commits later") await sleep(30);
          throw dependencyDown("postgres");
        },
      };
      const { log, runId, shown } = await newRun(60_000, unsure);
      log.append({ body: note("one") });
      await log.flush();
      log.append({ body: note("two") });
      await log.flush();
      await Promise.all(later);
      const events = await stored(runId);
      assert.deepEqual(
        events.map(({ seq, prevSeq }) => [seq, prevSeq]),
        [
          [1n, 0n],
          [2n, 1n],
        ],
        outcome,
      );
      assert.deepEqual(shown, events, outcome);
    }
  });

  test("a log that broke is opened again behind what is stored, for the end", async () => {
    const { log, runId, shown } = await newRun();
    log.append({ body: { payload: { case: "stepStarted", value: { step: 4 } } }, openStep: 4 });
    await log.flush();
    const refuse = () => Promise.reject(new Error("refused"));
    log.append({ body: note("doomed"), within: refuse });
    log.transient(text("never shown"));
    await assert.rejects(log.flush(), /refused/);
    log.transient(text("nor this"));
    assert.equal(await log.reopen(), 4);
    await finishRun(log, { kind: "cancelled", cause: "caller" }, context);
    const events = await stored(runId);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["step_started", "run_cancelled"],
    );
    assert.equal(events[1]?.prevSeq, events[0]?.seq);
    assert.deepEqual(shown, events);
    await assert.rejects(log.reopen(), LeaseLost, "a run that has ended is not opened again");
  });

  test("a run that is given up stops trying, shows nothing more, and sends its readers away", async () => {
    const away: Database = { ...database.db, tenant: () => Promise.reject(dependencyDown("postgres")) };
    const { log, shown } = await newRun(60_000, away);
    using reader = log.feed.subscribe();
    log.append({ body: note("waits") });
    const flushed = log.flush();
    await sleep(20);
    log.abandon();
    await assert.rejects(flushed, LeaseLost);
    log.transient(text("late"));
    assert.deepEqual(shown, []);
    assert.equal(reader.queue.ended, "closed");
  });

  test("an owner whose epoch has passed writes nothing and shows nothing", async () => {
    const { log, runId, shown } = await newRun(1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const claimed = await database.db.worker((tx) =>
      claimExpired(tx, { owner: "ins_b", address: "", leaseMs: 60_000 }, 10),
    );
    assert.ok(claimed.some((one) => one.runId === runId));
    log.append({ body: note("late") });
    await assert.rejects(log.flush(), LeaseLost);
    assert.deepEqual([await stored(runId), shown], [[], []]);
    await assert.rejects(finishRun(log, { kind: "cancelled", cause: "caller" }, context), LeaseLost);
  });

  test("ends once: state, terminal event and the session's freedom together, and nothing after it", async () => {
    const { log, runId, sessionId } = await newRun();
    await finishRun(log, { kind: "completed", outcome: RunOutcome.ANSWERED, response: "hi" }, context);
    const { run, session } = await database.db.tenant(tenantId, async (tx) => ({
      run: await runById(tx, runId),
      session: await sessionById(tx, sessionId),
    }));
    assert.equal(run?.state, RunState.COMPLETED);
    assert.equal(run?.response, "hi");
    assert.equal(session?.active_run_id, null);
    log.append({ body: note("afterwards") });
    await assert.rejects(log.flush(), LeaseLost);
    assert.equal((await stored(runId)).at(-1)?.type, "run_completed");
  });

  test("a heartbeat keeps the runs that are still ours and names no others", async () => {
    const mine = await newRun();
    const other = await newRun();
    const held = [mine.log.fence, { ...other.log.fence, epoch: 7 }].map((fence) => ({ fence, nextSeq: 1n }));
    const { renewed, lost } = await database.db.worker((tx) => renewLeases(tx, "ins_a", held, 60_000));
    assert.deepEqual([[...renewed], [...lost]], [[mine.runId], [other.runId]]);
  });

  test("a heartbeat does not wait for a run that somebody writes to, and takes it for nobody else's", async () => {
    const [busy, free] = [await newRun(), await newRun()];
    const gate = Promise.withResolvers<void>();
    const locked = Promise.withResolvers<void>();
    const writing = database.db.tenant(tenantId, async (tx) => {
      await runById(tx, busy.runId, true);
      locked.resolve();
      await gate.promise;
    });
    await locked.promise;
    const held = [busy, free].map(({ log }) => ({ fence: log.fence, nextSeq: log.nextSeq }));
    const { renewed, lost } = await database.db.worker((tx) => renewLeases(tx, "ins_a", held, 60_000));
    gate.resolve();
    await writing;
    assert.deepEqual([[...renewed], [...lost]], [[free.runId], []]);
  });

  test("a heartbeat reserves more numbers before a run has used up its own", async () => {
    const { log, runId } = await newRun();
    const reserved = async (nextSeq: bigint) => {
      await database.db.worker((tx) => renewLeases(tx, "ins_a", [{ fence: log.fence, nextSeq }], 60_000));
      return (await database.db.tenant(tenantId, (tx) => runById(tx, runId)))?.seq_reserved;
    };
    assert.equal(await reserved(10n), SEQ_BLOCK);
    assert.equal(await reserved(SEQ_BLOCK / 2n + 1n), 2n * SEQ_BLOCK);
    assert.equal(await reserved(SEQ_BLOCK / 2n + 2n), 2n * SEQ_BLOCK);
  });

  test("the reaper ends a dead owner's run above its numbers, voids its open step, and does so once among many", async () => {
    const { log, runId, sessionId } = await newRun(300);
    log.append({ body: { payload: { case: "stepStarted", value: { step: 1 } } }, openStep: 1 });
    await log.flush();
    await new Promise((resolve) => setTimeout(resolve, 350));
    const quiet = createLog({ level: "silent", service: "test" });
    const reapers = ["ins_c", "ins_d", "ins_e"].map(
      (owner) =>
        new Reaper({
          database: database.db,
          owner,
          address: "",
          leaseMs: 60_000,
          everyMs: 1_000,
          log: quiet,
          announce: () => {},
          maxAttempts: 5,
          takeUp: () => assert.fail("what it was begun with is not stored"),
          onTakenUp: () => {},
          onReaped: () => {},
        }),
    );
    await Promise.all(reapers.map((reaper) => reaper.reap()));
    const events = await stored(runId);
    assert.deepEqual(
      events.map(({ type }) => type),
      ["step_started", "item_discarded", "run_failed"],
    );
    assert.ok((events[1]?.seq ?? 0n) > SEQ_BLOCK, "the next owner's numbers begin above the reserved ones");
    assert.equal(events[1]?.prevSeq, events[0]?.seq);
    const { run, session } = await database.db.tenant(tenantId, async (tx) => ({
      run: await runById(tx, runId),
      session: await sessionById(tx, sessionId),
    }));
    assert.equal(run?.state, RunState.FAILED);
    assert.equal(run?.epoch, 2);
    assert.equal(session?.active_run_id, null);
  });
});
