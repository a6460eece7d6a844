import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { toBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { Bus } from "#platform/bus/bus.ts";
import { EmbeddedBus } from "#platform/bus/embedded-bus.ts";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import { withSignal } from "#platform/rpc/call.ts";
import { dependencyDown, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { principalOf } from "#platform/testing/service-under-test.ts";
import { SEQ_BLOCK } from "../store/run-store.ts";
import { markDeleted } from "../store/session-store.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { type DrivenRun, driveRun } from "../testing/driven-run.ts";
import { assertChain, assertRising, durable } from "../testing/watching.ts";
import { durableEvent, type EventBody } from "./event-envelope.ts";
import { MAX_QUEUED_BYTES } from "./event-queue.ts";
import { abandon } from "./live-runs.ts";
import { type WatchDeps, type WatchFrame, type WatchOptions, watchRun } from "./watch.ts";

const note: EventBody = { payload: { case: "notice", value: { reason: "NOTE" } } };
const started: EventBody = { itemId: "msg_a", payload: { case: "messageStarted", value: {} } };
const piece = (offset: number, text: string): EventBody => ({
  itemId: "msg_a",
  payload: { case: "textDelta", value: { offset: BigInt(offset), text } },
});

/** A watcher that reads in the background. */
class Watching {
  readonly frames: WatchFrame[] = [];
  readonly ended: Promise<unknown>;
  readonly #caller = new AbortController();
  #hold: Promise<void> | undefined;
  #release = () => {};

  constructor(deps: WatchDeps, run: DrivenRun, options: Partial<WatchOptions> = {}) {
    const call = withSignal(run.call, this.#caller.signal);
    const all = { runId: run.runId, afterSeq: 0n, liveOnly: false, reach: { endUserId: undefined }, ...options };
    this.ended = this.#read(watchRun(deps, call, all)).then(
      () => undefined,
      (error: unknown) => error,
    );
  }

  get events(): AgentEvent[] {
    return this.frames.flatMap((frame) => (frame.kind === "event" ? [frame.event] : []));
  }

  kinds(): string[] {
    return this.frames.map((frame) => (frame.kind === "event" ? frame.event.type : frame.kind));
  }

  seen(kind: string, times = 1): Promise<void> {
    return until(() => this.kinds().filter((one) => one === kind).length >= times, kind);
  }

  /** Stops reading until {@link resume}. */
  pause(): void {
    this.#hold = new Promise((resolve) => (this.#release = resolve));
  }

  resume(): void {
    this.#release();
  }

  leave(reason?: unknown): void {
    this.#caller.abort(reason);
  }

  async #read(frames: AsyncIterable<WatchFrame>): Promise<void> {
    for await (const frame of frames) {
      this.frames.push(frame);
      await this.#hold;
    }
  }
}

describe("a watcher", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let run: DrivenRun;
  let deps: WatchDeps;
  /** What is done before a transaction of a watcher, by its number. */
  let hook: (transaction: number) => Promise<void> = async () => {};
  let transactions = 0;
  const bus = new EmbeddedBus({ log: createLog({ level: "silent", service: "bus" }) });
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, bus: () => bus, agent: { lease: "5m", heartbeat: "1m" } });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(async () => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    run = await driveRun(mesh, mesh.one, me);
    hook = async () => {};
    transactions = 0;
    const database: Database = {
      ...mesh.db,
      async tenant(tenantId, fn, options) {
        await hook(++transactions);
        return mesh.db.tenant(tenantId, fn, options);
      },
    };
    const { liveRuns, remoteTails } = mesh.one.service;
    deps = { database, bus, liveRuns, remoteTails, heartbeatMs: 60_000, drain: new AbortController().signal };
  });

  afterEach(() => run.drop());

  const subscribers = () => run.log.feed.subscribers;
  /** The same watcher, on the replica that does not own the run. */
  const elsewhere = (): WatchDeps => ({
    ...deps,
    liveRuns: mesh.two.service.liveRuns,
    remoteTails: mesh.two.service.remoteTails,
  });

  test("who joins while an event is being stored gets what is open as of exactly there", async () => {
    run.log.append({ body: note });
    run.log.transient(started);
    run.log.transient(piece(0, "one "));
    await run.log.flush();
    // The run goes on between the moment when the feed is joined and the moment when the log is read.
    hook = async (transaction) => {
      if (transaction !== 2) return;
      run.log.transient(piece(4, "two "));
      run.log.append({ body: note });
      await run.log.flush();
    };
    const watching = new Watching(deps, run);
    await watching.seen("open_items");
    run.log.transient(piece(8, "three"));
    await watching.seen("text_delta");
    assert.deepEqual(watching.kinds(), ["notice", "notice", "caught_up", "open_items", "text_delta"]);
    const open = watching.frames.find((frame) => frame.kind === "open_items");
    assert.equal(open?.open.items[0]?.content, "one two ");
    assert.equal(open?.open.asOfSeq, watching.events[1]?.seq);
    assertRising(watching.events);
    await run.end();
    assert.equal(await watching.ended, undefined);
    await mesh.settled();
  });

  test("who has seen more than the feed has shown so far waits for it to come there, and misses nothing after", async () => {
    run.log.append({ body: note });
    await run.log.flush();
    run.log.transient(started);
    run.log.transient(piece(0, "one "));
    const last = run.log.nextSeq - 1n;
    // The feed of a tail may lag behind what its reader saw from the owner itself.
    const watching = new Watching(deps, run, { afterSeq: last + 1n });
    await watching.seen("caught_up");
    run.log.transient(piece(4, "two "));
    run.log.transient(piece(8, "three"));
    await watching.seen("text_delta");
    assert.deepEqual(watching.kinds(), ["caught_up", "open_items", "text_delta"]);
    assert.equal(watching.events[0]?.seq, last + 2n);
    await run.end();
    await watching.ended;
  });

  test("goes back to the log when something durable went by unseen", async () => {
    const watching = new Watching(deps, run);
    await watching.seen("caught_up");
    run.log.append({ body: note });
    await run.log.flush();
    await watching.seen("notice");
    // A feed that lost an event: stored, and never pushed.
    const { push } = run.log.feed;
    run.log.feed.push = () => {};
    run.log.append({ body: note });
    await run.log.flush();
    run.log.feed.push = push;
    run.log.append({ body: note });
    await run.log.flush();
    await watching.seen("notice", 3);
    await run.end();
    await watching.ended;
    assertChain(watching.events);
    assert.equal(durable(watching.events).length, 4);
  });

  test("that does not read never holds more than its bound, and catches up from the log", async () => {
    const watching = new Watching(deps, run);
    await watching.seen("caught_up");
    watching.pause();
    run.log.append({ body: note });
    await run.log.flush();
    run.log.transient(started);
    for (let i = 0; i < 20; i++) run.log.transient(piece(i * 50_000, "x".repeat(50_000)));
    for (let i = 0; i < 5; i++) run.log.append({ body: note });
    await run.log.flush();
    watching.resume();
    await watching.seen("notice", 6);
    await run.end();
    assert.equal(await watching.ended, undefined);
    assertChain(watching.events);
    const bytes = watching.events.reduce(
      (sum, { payload }) => sum + (payload.case === "textDelta" ? payload.value.text.length : 0),
      0,
    );
    assert.ok(bytes <= MAX_QUEUED_BYTES, `${bytes} bytes of previews waited`);
    const open = watching.frames.findLast((frame) => frame.kind === "open_items");
    assert.equal(open?.open.items[0]?.content.length, 20 * 50_000);
  });

  test("of a finished run gets all of it, the rest of it, or nothing but the news that it is caught up", async () => {
    run.log.append({ body: note });
    await run.end();
    const end = run.log.nextSeq - 1n;
    const all = ["notice", "run_cancelled", "caught_up"];
    for (const [options, expected] of [
      [{}, all],
      [{ afterSeq: 1n }, all.slice(1)],
      [{ afterSeq: end }, all.slice(2)],
      [{ liveOnly: true }, all.slice(1)],
    ] as const) {
      const watching = new Watching(deps, run, options);
      assert.equal(await watching.ended, undefined);
      assert.deepEqual(watching.kinds(), expected);
      const other = new Watching(elsewhere(), run, options);
      await other.ended;
      assert.deepEqual(other.frames, watching.frames);
    }
  });

  test("with live_only begins after what is stored", async () => {
    run.log.append({ body: note });
    await run.log.flush();
    const watching = new Watching(deps, run, { liveOnly: true });
    await watching.seen("caught_up");
    run.log.transient(started);
    await run.end();
    await watching.ended;
    assert.deepEqual(watching.kinds(), ["caught_up", "message_started", "run_cancelled"]);
  });

  test("is refused a cursor that no event can have, and served with any that one can have had", async () => {
    const ahead = new Watching(deps, run, { afterSeq: SEQ_BLOCK + 1n });
    assert.equal(reasonOf(await ahead.ended), "EVENT_CURSOR_AHEAD");
    const served = new Watching(deps, run, { afterSeq: SEQ_BLOCK });
    await served.seen("caught_up");
    await run.end();
    assert.equal(await served.ended, undefined);
    await mesh.settled();
  });

  test("sees signs of life in silence, wherever it waits", async () => {
    const short = { heartbeatMs: 30 };
    const live = new Watching({ ...deps, ...short }, run);
    const ahead = new Watching({ ...deps, ...short }, run, { afterSeq: 500n });
    const remote = new Watching({ ...elsewhere(), ...short }, run);
    const { remoteTails } = deps;
    const nobody = {
      ...deps,
      ...short,
      liveRuns: mesh.two.service.liveRuns,
      remoteTails: { ...remoteTails, subscribe: async () => undefined },
    };
    const alone = new Watching(nobody as unknown as WatchDeps, run);
    // Events flow, but none that this one wants.
    const filtered = new Watching({ ...deps, heartbeatMs: 60 }, run, { wants: ({ type }) => type === "notice" });
    for (let i = 0; i < 40; i++) {
      run.log.transient(piece(i, "x"));
      await sleep(5);
    }
    await filtered.seen("heartbeat");
    assert.deepEqual(filtered.events, []);
    await Promise.all([live, ahead, remote, alone].map((watching) => watching.seen("heartbeat", 2)));
    await run.end();
    for (const watching of [live, ahead, remote, alone, filtered]) assert.equal(await watching.ended, undefined);
    await mesh.settled();
  });

  test("leaves nothing behind, whenever and wherever its caller leaves", async () => {
    const left = new Error("left");
    for (const where of ["own", "remote"] as const) {
      for (let moment = 0; moment < 5; moment++) {
        const from = where === "own" ? deps : elsewhere();
        const leaves: { now?: () => void } = {};
        transactions = 0;
        hook = async (transaction) => {
          await sleep(1);
          if (transaction === moment) leaves.now?.();
        };
        const watching = new Watching(from, run);
        leaves.now = () => watching.leave(left);
        // Before anything, at its first look, at its second, when it has caught up, a moment after that.
        if (moment === 0) watching.leave(left);
        if (moment >= 3) await watching.seen("caught_up");
        if (moment === 4) await sleep(5);
        if (moment >= 3) watching.leave(left);
        assert.equal(await watching.ended, left, `${where} ${moment}`);
      }
    }
    await mesh.settled();
    assert.equal(subscribers(), 0);
    await run.end();
  });

  test("leaves nothing behind when its generator is dropped between two frames, or was never begun", async () => {
    const options = { runId: run.runId, afterSeq: 0n, liveOnly: false, reach: { endUserId: undefined } };
    const frames = watchRun(deps, run.call, options);
    await frames.next();
    assert.equal(subscribers(), 1);
    await frames.return(undefined);
    assert.equal(subscribers(), 0);
    const never = watchRun(deps, run.call, options);
    assert.ok(never !== undefined);
    assert.equal(subscribers(), 0);
    await run.end();
  });

  test("goes on by looking when the bus is away", async () => {
    const away = { ...bus, listen: () => Promise.reject(dependencyDown("nats")) } as unknown as Bus;
    const tails = { subscribe: async () => undefined } as unknown as WatchDeps["remoteTails"];
    const watching = new Watching({ ...deps, bus: away, liveRuns: mesh.two.service.liveRuns, remoteTails: tails }, run);
    await watching.seen("caught_up");
    run.log.append({ body: note });
    await run.log.flush();
    await watching.seen("notice");
    await run.end();
    assert.equal(await watching.ended, undefined);
    assertChain(watching.events);
  });

  test("of a run whose lease is lost waits for its next owner without asking all the time", async () => {
    const watching = new Watching(deps, run);
    await watching.seen("caught_up");
    const live = deps.liveRuns.get(me.tenantId, run.runId);
    assert.ok(live !== undefined);
    // Its executor may take a moment to end.
    abandon(live);
    const asked = transactions;
    await sleep(400);
    assert.ok(transactions - asked <= 6, `${transactions - asked} looks at the database`);
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute("UPDATE agent.runs SET owner = 'ins_next', epoch = 2 WHERE run_id = $1", [run.runId]),
    );
    const end = durableEvent(run.log.ids, SEQ_BLOCK + 1n, 0n, { payload: { case: "runFailed", value: {} } });
    await storeEvent(mesh.db, me.tenantId, end);
    assert.equal(await watching.ended, undefined);
    assert.deepEqual(watching.events.at(-1), end);
  });

  test("of a run whose session is deleted is told that there is none", async () => {
    const tails = { subscribe: async () => undefined } as unknown as WatchDeps["remoteTails"];
    const watching = new Watching({ ...deps, liveRuns: mesh.two.service.liveRuns, remoteTails: tails }, run);
    await watching.seen("caught_up");
    await mesh.db.tenant(me.tenantId, (tx) => markDeleted(tx, run.log.ids.sessionId));
    assert.equal(reasonOf(await watching.ended), "RESOURCE_NOT_FOUND");
  });

  test("of another tenant is told that there is none", async () => {
    const other = principalOf(newId("ten"), TENANT_SCOPES);
    const theirs = { ...run, call: { ...run.call, principal: other } };
    assert.equal(reasonOf(await new Watching(deps, theirs).ended), "RESOURCE_NOT_FOUND");
    assert.equal(reasonOf(await rejection(watchNext(deps, theirs))), "RESOURCE_NOT_FOUND");
    await run.end();
  });
});

function watchNext(deps: WatchDeps, { runId, call }: DrivenRun) {
  return watchRun(deps, call, { runId, afterSeq: 0n, liveOnly: true, reach: { endUserId: "usr_1" } }).next();
}

async function storeEvent(database: Database, tenantId: string, event: AgentEvent): Promise<void> {
  await database.tenant(tenantId, async (tx) => {
    await tx.execute(
      `INSERT INTO agent.run_events (tenant_id, run_id, seq, type, event)
       VALUES (agentmesh.current_tenant(), $1, $2, $3, $4)`,
      [event.runId, event.seq.toString(), event.type, toBinary(AgentEventSchema, event)],
    );
    await tx.execute("UPDATE agent.runs SET last_seq = $2, state = 5 WHERE run_id = $1", [
      event.runId,
      event.seq.toString(),
    ]);
  });
}
