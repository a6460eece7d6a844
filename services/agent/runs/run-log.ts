import { setImmediate as turnOver } from "node:timers/promises";
import { toBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { pause } from "#platform/abortable.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { InputsPending, LeaseLost } from "../errors.ts";
import type { LedgerEntry } from "../store/ledger-store.ts";
import type { NewMessage } from "../store/message-store.ts";
import type { StepDraft } from "../store/resume-store.ts";
import { type Awaited, type Fence, type RunRow, runById } from "../store/run-store.ts";
import { type RunWrite, writeRun } from "../store/run-writes.ts";
import { durableEvent, type EventBody, isTerminal, type RunIds, transientEvent } from "./event-envelope.ts";
import { LiveFeed } from "./live-feed.ts";
import { OpenItemsModel } from "./open-items.ts";
import { isOver } from "./run-state.ts";

export interface RunLogOptions {
  database: Database;
  fence: Fence;
  ids: RunIds;
  /** seq of the newest durable event, and the first free number. */
  lastDurableSeq: bigint;
  nextSeq: bigint;
  /** True: the run's open step has a draft. */
  hasDraft?: boolean;
  /** True: messages that were sent to the run wait to be taken in. */
  inputsDue?: boolean;
  /** How long a write is tried again while the database is away: the lease's length, after which another may own the run. */
  retryForMs: number;
  /** Told after each commit, with the newest durable event. */
  onCommitted(event: AgentEvent): void;
}

/** A durable event and what is written with it, or something that is written behind the events before it. */
export interface DurableEntry {
  /** Absent: no event. */
  body?: EventBody;
  /** The open step, now that its model has asked for tools. */
  draft?: StepDraft;
  /** The step that is open from this event on; 0 when none is. */
  openStep?: number | undefined;
  /** True: the draft stays, though no step is open, for a run that goes on with this one's. */
  keepsDraft?: boolean;
  /** What the event adds to the session. */
  messages?: readonly NewMessage[] | undefined;
  /** Id of the message among `messages` that was sent to the run, which is taken in with it. */
  takes?: string | undefined;
  /** The end of the run, for its terminal event. */
  end?: RunWrite["end"];
  /** What the run waits for from this event on; it is the last one of this owner's. */
  suspend?: readonly Awaited[] | undefined;
  /** Writes what belongs to the event, in its transaction. */
  within?: ((tx: Tx) => Promise<void>) | undefined;
}

type Entry = { durable: DurableEntry } | { transient: EventBody };

const RETRIED: ReadonlySet<string | undefined> = new Set(["DEPENDENCY_DOWN", "CONCURRENT_CHANGE", "DEADLINE"]);

/**
 * The event log of a run that this process owns, with one writer: the run's executor. Durable events are committed under
 * the fence before anyone sees them and chained by prev_seq; transient ones are shown at once and stored nowhere.
 * Commits run beside the work: what is appended while one is under way goes into the next one, and is shown in the order
 * in which it was appended.
 */
export class RunLog {
  readonly feed: LiveFeed;
  readonly ids: RunIds;
  readonly fence: Fence;
  readonly #options: RunLogOptions;
  readonly #given = new AbortController();
  #nextSeq: bigint;
  #prevSeq: bigint;
  #waiting: Entry[] = [];
  /** Calls of models that are not written yet, also across a log that broke: they were paid. */
  #unbooked: LedgerEntry[] = [];
  #writing: Promise<void> | undefined;
  #broken: unknown;
  #hasDraft: boolean;
  #inputsDue: boolean;
  #endRefused = false;

  constructor(options: RunLogOptions) {
    this.#options = options;
    this.ids = options.ids;
    this.fence = options.fence;
    this.feed = new LiveFeed(new OpenItemsModel(options.lastDurableSeq));
    this.#nextSeq = options.nextSeq;
    this.#prevSeq = options.lastDurableSeq;
    this.#hasDraft = options.hasDraft === true;
    this.#inputsDue = options.inputsDue === true;
  }

  /** True when messages that were sent to the run may wait to be taken in: as the last commit has found it, or was told since. */
  get inputsDue(): boolean {
    return this.#inputsDue;
  }

  /** To be told that a message waits, and that those that wait are being read. */
  set inputsDue(due: boolean) {
    this.#inputsDue = due;
  }

  /** True, once, when an end was not written because a message was sent to the run before; what was appended in front of it was. */
  takeRefusal(): boolean {
    const refused = this.#endRefused;
    this.#endRefused = false;
    return refused;
  }

  /** The number that the next event gets, unless more are waiting. */
  get nextSeq(): bigint {
    return this.#nextSeq;
  }

  /** Shows a preview: at once, or behind the durable events that wait for their commit. A broken log shows nothing. */
  transient(body: EventBody): void {
    if (this.#broken !== undefined) return;
    if (this.#writing === undefined) this.feed.push(transientEvent(this.ids.runId, this.#nextSeq++, body));
    else this.#waiting.push({ transient: body });
  }

  /** Books a call of a model with the next durable event. */
  book(call: LedgerEntry): void {
    this.#unbooked.push(call);
  }

  /** Appends a durable event. It is committed soon, and shown then; see flush. */
  append(entry: DurableEntry): void {
    this.#waiting.push({ durable: entry });
    this.#writing ??= this.#write();
  }

  /**
   * Resolves when everything that was appended is committed and shown. Throws when the log is broken: LeaseLost when the
   * fence no longer holds, or what the database said; then nothing that was not shown was written, or a commit's outcome
   * stayed unknown.
   */
  async flush(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
    this.check();
  }

  /** Throws when the log is broken, without waiting. */
  check(): void {
    if (this.#broken !== undefined) throw this.#broken;
  }

  /** Why the log is broken; undefined while it is whole. */
  get broken(): unknown {
    return this.#broken;
  }

  /** Calls of models that no commit has brought, once nothing is being written any more. Never rejects. */
  async unbooked(): Promise<readonly LedgerEntry[]> {
    while (this.#writing !== undefined) await this.#writing;
    return this.unbookedNow;
  }

  /** Calls of models that are not known to be written. */
  get unbookedNow(): readonly LedgerEntry[] {
    return this.#unbooked.slice();
  }

  /** Gives the run up: nothing more is tried or shown, and readers go on with what is stored. */
  abandon(): void {
    this.#broken = new LeaseLost(this.ids.runId);
    this.#given.abort(this.#broken);
    this.feed.close();
  }

  /**
   * Makes a broken log writable again, behind what is stored; what was not written is forgotten. For the one event that
   * must still be written, the terminal one. Returns the step that is open. Throws LeaseLost when the run is not this
   * owner's any more or has ended.
   */
  async reopen(): Promise<number> {
    const run = await this.#mine();
    if (run === undefined || this.#given.signal.aborted) throw new LeaseLost(this.ids.runId);
    this.#waiting = [];
    this.#broken = undefined;
    this.#prevSeq = run.last_seq;
    if (this.#nextSeq <= run.last_seq) this.#nextSeq = run.last_seq + 1n;
    return run.open_step;
  }

  /** The run's row, when this owner still has it and it has not ended. */
  async #mine(): Promise<RunRow | undefined> {
    const { fence, ids } = this;
    // The lock outwaits a commit of ours whose outcome is unknown.
    const run = await this.#options.database.tenant(fence.tenantId, (tx) => runById(tx, ids.runId, true), {
      signal: this.#given.signal,
    });
    return run?.owner === fence.owner && run.epoch === fence.epoch && !isOver(run) ? run : undefined;
  }

  async #write(): Promise<void> {
    // After all that this turn of the event loop still brings, so that it shares a commit.
    await turnOver();
    try {
      while (this.#waiting.length > 0 && this.#broken === undefined) {
        const entries = this.#waiting;
        this.#waiting = [];
        await this.#commit(entries);
      }
    } catch (error) {
      this.#broken ??= error;
    } finally {
      this.#writing = undefined;
    }
  }

  async #commit(entries: readonly Entry[]): Promise<void> {
    let seq = this.#nextSeq;
    let prevSeq = this.#prevSeq;
    const events: AgentEvent[] = [];
    const durables: DurableEntry[] = [];
    for (const entry of entries) {
      if ("transient" in entry) {
        events.push(transientEvent(this.ids.runId, seq++, entry.transient));
        continue;
      }
      durables.push(entry.durable);
      if (entry.durable.body === undefined) continue;
      events.push(durableEvent(this.ids, seq, prevSeq, entry.durable.body));
      prevSeq = seq++;
    }
    failpoint("run-log.before-store");
    try {
      if (durables.length > 0) await this.#store(events, durables, prevSeq);
    } catch (error) {
      if (!(error instanceof InputsPending)) throw error;
      this.#endRefused = true;
      this.#inputsDue = true;
      const rest = entries.filter((entry) => !("durable" in entry && entry.durable.end !== undefined));
      if (rest.length > 0) await this.#commit(rest);
      return;
    }
    failpoint("run-log.after-store");
    // Given up meanwhile: what was committed is in the log, where its readers are.
    if (this.#given.signal.aborted) return;
    this.#nextSeq = seq;
    this.#prevSeq = prevSeq;
    for (const event of events) this.feed.push(event);
    failpoint("run-log.after-show");
    const newest = events.findLast(({ retention }) => retention === Retention.DURABLE);
    if (newest === undefined) return;
    this.#options.onCommitted(newest);
    if (isTerminal(newest) || durables.some(({ suspend }) => suspend !== undefined)) this.feed.close();
  }

  /**
   * One transaction, tried again while the database is away and the lease may still hold. When a commit's outcome is
   * unknown, the run row tells it: last_seq is the newest number that was committed. The row is locked for that, because
   * the server may still be busy with the commit that this process has given up.
   */
  async #store(events: readonly AgentEvent[], durables: readonly DurableEntry[], lastSeq: bigint): Promise<void> {
    const rows = events
      .filter(({ retention }) => retention === Retention.DURABLE)
      .map((event) => ({ seq: event.seq, type: event.type, event: toBinary(AgentEventSchema, event) }));
    const planned = durables.findLastIndex(({ draft }) => draft !== undefined);
    const completed = durables.findLastIndex(({ openStep, keepsDraft }) => openStep === 0 && keepsDraft !== true);
    const draft = planned > completed ? durables[planned]?.draft : undefined;
    const write: RunWrite = {
      events: rows,
      lastSeq,
      draft,
      dropsDraft: draft === undefined && completed >= 0 && this.#hasDraft,
      openStep: durables.findLast((entry) => entry.openStep !== undefined)?.openStep,
      messages: durables.flatMap(({ messages }) => messages ?? []),
      end: durables.findLast(({ end }) => end !== undefined)?.end,
      suspend: durables.findLast(({ suspend }) => suspend !== undefined)?.suspend,
    };
    const takes = durables.flatMap((entry) => entry.takes ?? []);
    if (takes.length > 0) write.takes = takes;
    const booked = this.#unbooked.length;
    if (booked > 0) write.calls = this.#unbooked.slice();
    const withins = durables.flatMap(({ within }) => within ?? []);
    const { database, retryForMs } = this.#options;
    const giveUpAt = performance.now() + retryForMs;
    const deadline = Date.now() + retryForMs;
    for (let attempt = 0; ; attempt++) {
      try {
        await database.tenant(
          this.fence.tenantId,
          async (tx) => {
            // What is written without an event may be written twice.
            if (attempt > 0 && rows.length > 0 && (await runById(tx, this.ids.runId, true))?.last_seq === lastSeq)
              return;
            failpoint("run-log.in-transaction");
            const waiting = await writeRun(tx, this.fence, write, withins.length === 0 ? "last" : "more");
            if (waiting > 0) this.#inputsDue = true;
            failpoint("run-log.after-write");
            for (const within of withins) await within(tx);
          },
          { deadline },
        );
        this.#unbooked.splice(0, booked);
        if (draft !== undefined) this.#hasDraft = true;
        else if (write.dropsDraft === true) this.#hasDraft = false;
        return;
      } catch (error) {
        if (error instanceof LeaseLost && write.end !== undefined && (await this.#mine())?.inputs_pending)
          throw new InputsPending();
        if (!RETRIED.has(reasonOf(error)) || performance.now() > giveUpAt) throw error;
        await pause(Math.min(100 * 2 ** attempt, 1000), this.#given.signal);
      }
    }
  }
}
