import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { abortable, pause, within } from "#platform/abortable.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Tx, TxOptions } from "#platform/postgres/database.ts";
import { remembered } from "#platform/postgres/idempotency.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import type { Log } from "#platform/telemetry/log.ts";
import type { RunPool } from "../admission/run-pool.ts";
import { endSuspended } from "../approvals/end-suspended.ts";
import { awaitedToProto } from "../approvals/suspend-run.ts";
import { canonical } from "../domain/canonical.ts";
import type { Cursor } from "../domain/cursor.ts";
import { type Reach, reaches, readReach, writeReach } from "../domain/ownership.ts";
import type { RunInput } from "../domain/run-input.ts";
import { ownerUnreachable, shuttingDown } from "../errors.ts";
import { endQueued } from "../queue/end-queued.ts";
import { enqueueRun } from "../queue/enqueue.ts";
import { isExternalId } from "../sessions/find-session.ts";
import { beginTurn } from "../steering/begin-turn.ts";
import { type InputToSend, type SentInput, sendInput } from "../steering/send-input.ts";
import { eventsOfTypes } from "../store/resume-store.ts";
import * as store from "../store/run-store.ts";
import { sessionByExternalId } from "../store/session-store.ts";
import type { Subscription } from "./live-feed.ts";
import type { LiveRuns } from "./live-runs.ts";
import { PENDING_EVENTS, PendingItems } from "./pending-items.ts";
import { retryRun } from "./retry-run.ts";
import type { ResumableRun, StartedRun } from "./run-begin.ts";
import type { RunExecutor } from "./run-executor.ts";
import { CancelRequest } from "./run-failure.ts";
import { type DurableEntry, RunLog } from "./run-log.ts";
import type { AttachedRun, StartDeps } from "./run-start.ts";
import { isOver } from "./run-state.ts";
import { isPruned, type Snapshot, snapshotOf } from "./snapshot.ts";
import { type WatchDeps, type WatchFrame, type WatchOptions, watchRun } from "./watch.ts";

export interface RunsDeps extends StartDeps, WatchDeps {
  pool: RunPool;
  liveRuns: LiveRuns;
  executor: RunExecutor;
  log: Log;
  /** Tells watchers everywhere that a run has new durable events. */
  announce(tenantId: string, event: AgentEvent): void;
  /** The same of a run whose events were stored with its beginning. */
  wake(tenantId: string, runId: string, seq: bigint): void;
  /** Asks the owner of a run, another replica, to cancel it. */
  cancelAt(call: Call, address: string, runId: string, cause: string): Promise<void>;
  /** Queued runs of a tenant, at most. */
  maxQueuedPerTenant: number;
  /** How long a queued run is left to whoever the bus told of it. */
  orphanAfterMs: number;
  /** Tells the owner of a run, another replica, that a message was sent to it. */
  nudgeAt(call: Call, address: string, runId: string): Promise<void>;
  /** How long a cancelled run may take to end: until the reaper has ended it, should its owner be gone. */
  cancelWaitMs: number;
}

/** A run that a call has begun or attached to. To be disposed of when nobody watches it any more, or ever. */
export interface OpenedRun extends Disposable {
  run: store.RunRow;
  /** The session id that the caller knows. */
  sessionId: string;
  /** A place at the feed of a new run, for `watch`. */
  fresh: { subscription: Subscription; seq: bigint } | undefined;
  /** Where the call's message has joined a run that was at work. */
  joined?: AttachedRun["joined"];
}

/** How long the owner of a run may take to answer that it has cancelled it. */
const OWNER_ANSWER_MS = 3_000;
const CANCEL_POLL_MS = 100;

/** Runs: begun here, executed here or elsewhere, watched from anywhere. */
export class Runs {
  readonly #deps: RunsDeps;

  constructor(deps: RunsDeps) {
    this.#deps = deps;
  }

  /** Begins a run, or attaches to the one that an earlier call with the same request id began. */
  async open(call: Call, input: RunInput): Promise<OpenedRun> {
    if (this.#deps.drain.aborted) throw shuttingDown();
    const interrupt = async (by: Call, runId: string) => void (await this.cancel(by, runId, "interrupted"));
    const started = await beginTurn({ ...this.#deps, interrupt }, call, input);
    failpoint("runs.after-start");
    const { run } = started;
    const sessionId = input.sessionId === "" ? run.session_id : input.sessionId;
    if (started.kind === "attached") {
      const { joined } = started;
      if (joined !== undefined) this.#nudge(call, run);
      return { run, sessionId, fresh: undefined, ...(joined && { joined }), [Symbol.dispose]: () => {} };
    }
    const subscription = this.#launch(call, started);
    failpoint("runs.after-launch");
    const fresh = { subscription, seq: run.last_seq };
    return { run, sessionId, fresh, [Symbol.dispose]: () => subscription[Symbol.dispose]() };
  }

  /** Stores a run that is begun when there is room for it; or finds the one of an earlier call with the same request id. */
  async enqueue(call: Call, input: RunInput): Promise<store.RunRow> {
    if (this.#deps.drain.aborted) throw shuttingDown();
    return enqueueRun(this.#deps, call, input, { whenBusy: input.onBusy === "enqueue" ? "wait" : "refuse" });
  }

  /** Works on a queued run that this process has begun, until it has ended or was given up; never rejects. */
  async launch(call: Call, started: StartedRun): Promise<void> {
    const { run_id: runId, last_seq: seq } = started.run;
    const { tenantId } = call.principal;
    this.#launch(call, started)[Symbol.dispose]();
    // Who has watched it since it was queued waits for its first events.
    this.#deps.wake(tenantId, runId, seq);
    await this.#deps.liveRuns.get(tenantId, runId)?.finished;
  }

  /** Sends a message to a run that is at work; see sendInput. */
  async send(call: Call, input: InputToSend): Promise<SentInput> {
    const sent = await sendInput(this.#deps, call, input);
    failpoint("runs.after-send");
    this.#nudge(call, sent.run);
    return sent;
  }

  /** Goes on with a failed run in a new one; see retryRun. Returns that one, or what has become of it when it began before. */
  async retry(call: Call, runId: string, requestId: string): Promise<store.RunRow> {
    if (this.#deps.drain.aborted) throw shuttingDown();
    const started = await retryRun(this.#deps, call, { runId, requestId });
    failpoint("runs.after-retry");
    if (started.kind === "started") {
      const { principal } = started.run;
      this.#launch({ principal, signal: call.signal, requestId: "", ip: "", userAgent: "" }, started)[Symbol.dispose]();
    }
    return started.run;
  }

  /** Events of a run as they come; see watchRun. */
  watch(call: Call, options: Partial<WatchOptions> & Pick<WatchOptions, "runId">): AsyncGenerator<WatchFrame> {
    const defaults = { afterSeq: 0n, liveOnly: false, reach: readReach(call.principal) };
    return watchRun(this.#deps, call, { ...defaults, ...options });
  }

  async get(call: Call, runId: string): Promise<store.RunRow> {
    return this.#find(call, runId, readReach(call.principal));
  }

  /** Throws NOT_FOUND unless the caller may change the run. */
  async mayChange(call: Call, runId: string): Promise<void> {
    await this.#find(call, runId, writeReach(call.principal));
  }

  async list(
    call: Call,
    filter: Omit<store.RunFilter, "endUserId">,
    page: { limit: number; after: Cursor | undefined },
  ): Promise<store.RunRow[]> {
    const { endUserId } = readReach(call.principal);
    return this.#read(call, async (tx) => {
      const { sessionId } = filter;
      if (sessionId === undefined || !isExternalId(sessionId)) {
        return store.listRuns(tx, { ...filter, endUserId }, page);
      }
      const session = await sessionByExternalId(tx, sessionId.toLowerCase(), endUserId);
      if (session === undefined) return [];
      return store.listRuns(tx, { ...filter, endUserId, sessionId: session.session_id }, page);
    });
  }

  /** Durable events after a cursor, and where some of them are not kept any more a snapshot in their place. */
  async events(
    call: Call,
    runId: string,
    afterSeq: bigint,
    limit: number,
  ): Promise<{ events: AgentEvent[]; snapshot: Snapshot | undefined }> {
    const run = await this.get(call, runId);
    const page = await this.#read(
      call,
      async (tx) => {
        const now = isOver(run) ? ((await store.runById(tx, runId)) ?? raise(notFound("run"))) : run;
        const pruned = isPruned(now, afterSeq);
        return {
          snapshot: pruned ? await snapshotOf(tx, now) : undefined,
          events: await store.eventsAfter(tx, runId, pruned ? now.pruned_seq : afterSeq, limit),
        };
      },
      "repeatable read",
    );
    return { ...page, events: page.events.map((bytes) => fromBinary(AgentEventSchema, bytes)) };
  }

  /** What a suspended run waits for, as a chat client needs it. */
  async pending(call: Call, run: store.RunRow): Promise<ReturnType<PendingItems["of"]>> {
    const items = new PendingItems();
    const stored = await this.#read(call, (tx) => eventsOfTypes(tx, run.run_id, PENDING_EVENTS));
    for (const bytes of stored) items.see(fromBinary(AgentEventSchema, bytes));
    return items.of((run.awaiting ?? []).map(awaitedToProto));
  }

  /**
   * Cancels a run wherever it is owned and waits until its end is written: the owner's, or the reaper's when the owner is
   * gone. One that nobody owns, because it waits, is ended here. On a run that has ended it changes nothing. UNAVAILABLE when
   * it has not ended in time; IDEMPOTENCY_KEY_REUSED when the request id was used for another run. A repeat with the same one
   * waits for the same end, so that one whose answer was lost on the way is told of it.
   */
  async cancel(call: Call, runId: string, cause: string, requestId = ""): Promise<store.RunRow> {
    const { database, cancelWaitMs } = this.#deps;
    const until = performance.now() + cancelWaitMs;
    let run = await this.#find(call, runId, writeReach(call.principal));
    const over = isOver(run);
    if (over && requestId === "") return run;
    const event = { type: "run.cancel_requested", resource: runId, sessionId: run.session_id, details: { cause } };
    const key = { schema: "agent", call, method: "RunService.CancelRun", requestId, request: canonical({ runId }) };
    const note = async (tx: Tx) => {
      const earlier = await remembered(tx, key, Buffer.from(runId));
      if (earlier === undefined && !over) await audit(tx, "agent", call, event);
    };
    await database.tenant(call.principal.tenantId, note, { signal: call.signal });
    if (over) return run;
    for (;;) {
      if (run.state === RunState.QUEUED) await this.#endQueued(call, runId, cause);
      else if (run.state === RunState.SUSPENDED) await this.#endSuspended(call, runId, cause);
      else await this.#askOwner(call, run, cause);
      run = await this.#find(call, runId, writeReach(call.principal));
      if (isOver(run)) return run;
      if (performance.now() > until) throw ownerUnreachable();
      await pause(CANCEL_POLL_MS, call.signal);
    }
  }

  /** Does nothing when the run goes on at this moment. */
  async #endSuspended(call: Call, runId: string, cause: string): Promise<void> {
    const { tenantId } = call.principal;
    const ended = await endSuspended(this.#deps.database, { tenantId, runId }, { kind: "cancelled", cause }, call);
    if (ended !== undefined) this.#deps.announce(ended.tenantId, ended.newest);
  }

  /** Cancels a run that this process owns; undefined when it does not. Resolves when the run has ended. */
  cancelOwned(tenantId: string, runId: string, cause: string): Promise<void> | undefined {
    const live = this.#deps.liveRuns.get(tenantId, runId);
    if (live === undefined) return undefined;
    live.controller.abort(new CancelRequest(cause));
    return live.finished;
  }

  /** Tells a run that this process owns that a message was sent to it. False when it does not. */
  nudgeOwned(tenantId: string, runId: string): boolean {
    const live = this.#deps.liveRuns.get(tenantId, runId);
    if (live !== undefined) live.log.inputsDue = true;
    return live !== undefined;
  }

  /** A place at the feed of a run that this process owns; undefined when it does not. */
  subscribeOwned(tenantId: string, runId: string): Subscription | undefined {
    return this.#deps.liveRuns.get(tenantId, runId)?.log.feed.subscribe();
  }

  async #endQueued(call: Call, runId: string, cause: string): Promise<void> {
    const run = { tenantId: call.principal.tenantId, runId };
    await endQueued(this.#deps, run, { kind: "cancelled", cause }, { call, signal: call.signal });
  }

  /** Returns when the run has ended, when its owner does not know of it, or when the owner does not answer. */
  async #askOwner(call: Call, run: store.RunRow, cause: string): Promise<void> {
    const { tenantId } = call.principal;
    // Nobody has taken it up yet.
    if (run.owner_address === "") return;
    const own = this.cancelOwned(tenantId, run.run_id, cause);
    const asked = own ?? this.#deps.cancelAt(call, run.owner_address, run.run_id, cause);
    try {
      await abortable(within(asked, OWNER_ANSWER_MS, ownerUnreachable), call.signal);
    } catch (error) {
      call.signal.throwIfAborted();
      this.#deps.log.debug({ err: error, run_id: run.run_id }, "agent.cancel.owner_did_not_answer");
    }
  }

  /** Goes on with a run whose lease this process has just taken, where its last owner left it. */
  takeUp(call: Call, resumable: ResumableRun): void {
    if (this.#deps.drain.aborted) return;
    const permit = this.#deps.pool.adopt(call.principal.tenantId, resumable.run.run_id);
    this.#launch(call, { ...resumable, permit }, takeUpEvents(resumable))[Symbol.dispose]();
  }

  /** Tells the owner of a run that a message was sent to it, so that its next turn takes it in. It finds out by itself as well. */
  #nudge(call: Call, run: store.RunRow): void {
    if (run.state !== RunState.RUNNING || this.nudgeOwned(call.principal.tenantId, run.run_id)) return;
    const told = this.#deps.nudgeAt(
      withSignal(call, AbortSignal.timeout(OWNER_ANSWER_MS)),
      run.owner_address,
      run.run_id,
    );
    told.catch((error: unknown) =>
      this.#deps.log.debug({ err: error, run_id: run.run_id }, "agent.nudge.owner_did_not_answer"),
    );
  }

  #launch(call: Call, started: StartedRun, first: readonly DurableEntry[] = []): Subscription {
    const { tenantId } = call.principal;
    const { run, session, leasedAt, resume, permit } = started;
    const log = new RunLog({
      database: this.#deps.database,
      fence: { tenantId, runId: run.run_id, owner: run.owner, epoch: run.epoch },
      ids: { runId: run.run_id, sessionId: session.session_id, agentId: run.agent_id },
      lastDurableSeq: run.last_seq,
      nextSeq: firstFree(run),
      hasDraft: resume?.work.openStep !== undefined,
      inputsDue: run.inputs_pending > 0,
      retryForMs: this.#deps.leaseMs,
      onCommitted: (event) => this.#deps.announce(tenantId, event),
    });
    const subscription = log.feed.subscribe();
    for (const entry of first) log.append(entry);
    const controller = new AbortController();
    const finished = this.#deps.executor.execute(withSignal(call, controller.signal), started, log);
    const givenBack = finished.finally(() => permit[Symbol.dispose]());
    this.#deps.liveRuns.add({ log, controller, finished: givenBack, leasedAt });
    return subscription;
  }

  async #find(call: Call, runId: string, reach: Reach): Promise<store.RunRow> {
    const run = await this.#read(call, (tx) => store.runById(tx, runId));
    return run !== undefined && reaches(reach, run) ? run : raise(notFound("run"));
  }

  #read<T>(call: Call, fn: (tx: Tx) => Promise<T>, isolation?: TxOptions["isolation"]): Promise<T> {
    const { signal, deadline } = call;
    return this.#deps.database.tenant(call.principal.tenantId, fn, { signal, deadline, readOnly: true, isolation });
  }
}

/** The first number of this owner's: it begins above all that an owner before it can have shown. */
function firstFree({ last_seq, seq_reserved }: store.RunRow): bigint {
  const before = seq_reserved - store.SEQ_BLOCK;
  return (before > last_seq ? before : last_seq) + 1n;
}

/** What was shown of a step and is not stored is void; the rest goes on. */
function takeUpEvents({ run, resume }: ResumableRun): DurableEntry[] {
  const entries: DurableEntry[] = [];
  if (run.open_step !== 0 && resume?.work.openStep === undefined) {
    const value = { step: run.open_step, cause: "owner_lost" };
    entries.push({ body: { payload: { case: "itemDiscarded", value } }, openStep: 0 });
  }
  const value = { cause: resume?.cause ?? "owner_lost", attempt: run.attempt };
  entries.push({ body: { payload: { case: "runResumed", value } } });
  return entries;
}
