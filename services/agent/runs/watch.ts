import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { OpenItems } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { Bus } from "#platform/bus/bus.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { type Reach, reaches } from "../domain/ownership.ts";
import { cursorAhead, draining } from "../errors.ts";
import { eventsAfter, type RunRow, runById } from "../store/run-store.ts";
import { isTerminal } from "./event-envelope.ts";
import type { EventQueue } from "./event-queue.ts";
import type { Subscription } from "./live-feed.ts";
import type { LiveRuns } from "./live-runs.ts";
import { OpenItemsModel } from "./open-items.ts";
import type { RemoteTails } from "./remote-tails.ts";
import { RunHint } from "./run-hint.ts";
import { isOver } from "./run-state.ts";
import { runSubject } from "./run-subject.ts";
import { isPruned, type Snapshot, snapshotOf } from "./snapshot.ts";

const REPLAY_PAGE = 200;
/** How often a run is looked at while its owner cannot be tailed; a wake-up on the bus is usually faster. */
const POLL_MS = 500;
/** How long after a failed try the owner is asked again. */
const RETRY_TAIL_MS = 2_000;
/** How often a run that waits for people is looked at. */
const SUSPENDED_POLL_MS = 5_000;

/** What a watcher is shown. */
export type WatchFrame =
  | { kind: "snapshot"; snapshot: Snapshot }
  | { kind: "event"; event: AgentEvent }
  | { kind: "caught_up"; seq: bigint }
  | { kind: "open_items"; open: OpenItems }
  | { kind: "heartbeat" };

export interface WatchOptions {
  runId: string;
  afterSeq: bigint;
  /** Skip the replay; of a run that has ended the end is shown all the same. */
  liveOnly: boolean;
  reach: Reach;
  /** Events to show; terminal ones are shown in any case. Default: all. */
  wants?: ((event: AgentEvent) => boolean) | undefined;
  /** A place at the feed of a run that was started by this very call: nothing needs to be replayed. */
  fresh?: { subscription: Subscription; seq: bigint } | undefined;
}

export interface WatchDeps {
  database: Database;
  bus: Bus;
  liveRuns: LiveRuns;
  remoteTails: RemoteTails;
  heartbeatMs: number;
  /** Aborts when this process drains: watchers of runs that it does not own itself are sent to another replica. */
  drain: AbortSignal;
}

/**
 * Watches a run from any replica: the durable events after the cursor from Postgres, then `caught_up`, what is open at
 * the owner, and everything live until the terminal event. The feed is joined before the log is read, so nothing falls
 * between; events that come by both ways are told apart by seq; a break in the prev_seq chain sends the reader back to
 * the log. Events that are not kept any more are shown as one snapshot. Ends without a terminal event only by throwing, or when the cursor is at the terminal event already.
 */
export function watchRun(deps: WatchDeps, call: Call, options: WatchOptions): AsyncGenerator<WatchFrame> {
  return new Watcher(deps, call, options).frames();
}

class Watcher {
  readonly #deps: WatchDeps;
  readonly #call: Call;
  readonly #options: WatchOptions;
  /** The caller has left, or this process drains and has no part in the run: nothing is to be waited for any more. */
  #stopped = false;
  /** Says so to those that need a signal; most readers wait for a feed only, and need none. */
  #stop: AbortController | undefined;
  #cursor: bigint;
  #ended = false;
  #own = false;
  #attached: Subscription | undefined;
  #hint: RunHint | undefined;
  #shownAt = performance.now();

  constructor(deps: WatchDeps, call: Call, options: WatchOptions) {
    this.#deps = deps;
    this.#call = call;
    this.#options = options;
    this.#cursor = options.afterSeq;
  }

  /** Begins to listen when the first frame is asked for, and stops whenever the reader leaves. */
  async *frames(): AsyncGenerator<WatchFrame> {
    const { signal } = this.#call;
    signal.addEventListener("abort", this.#onAbort);
    this.#deps.drain.addEventListener("abort", this.#onDrain);
    if (signal.aborted) this.#onAbort();
    try {
      const { fresh } = this.#options;
      if (fresh !== undefined) {
        this.#own = true;
        this.#attached = fresh.subscription;
        this.#cursor = fresh.seq;
        yield* this.#live(fresh.subscription.queue, []);
        this.#detach();
      }
      for (let first = fresh === undefined; !this.#ended; first = false) {
        this.#check();
        // Not kept while the feed is shown: most streams are open for long, and silent.
        let run: RunRow | undefined = await this.#row();
        if (first) this.#begin(run);
        this.#attached = isOver(run) || run.owner === "" ? undefined : await this.#attach(run);
        yield* this.#replay(run);
        if (first) yield this.#control({ kind: "caught_up", seq: this.#cursor });
        if (this.#ended) return;
        if (this.#attached !== undefined) {
          run = undefined;
          const beyond = yield* this.#join(this.#attached);
          if (beyond !== undefined) yield* this.#live(this.#attached.queue, beyond);
        } else if (isOver(run)) return;
        else yield* this.#rest(run);
        this.#detach();
      }
    } finally {
      this.#detach();
      this.#hint?.[Symbol.dispose]();
      signal.removeEventListener("abort", this.#onAbort);
      this.#deps.drain.removeEventListener("abort", this.#onDrain);
    }
  }

  readonly #onAbort = () => {
    this.#stopped = true;
    this.#stop?.abort();
    this.#attached?.queue.nudge();
  };

  readonly #onDrain = () => {
    if (!this.#own) this.#onAbort();
  };

  #stopSignal(): AbortSignal {
    this.#stop ??= new AbortController();
    if (this.#stopped) this.#stop.abort();
    return this.#stop.signal;
  }

  /** Waits for a feed; "idle" when it is time for a sign of life. */
  #wait(queue: EventQueue): Promise<"ready" | "idle"> | "ready" {
    return this.#stopped ? "ready" : queue.wait(undefined, this.#patience());
  }

  #detach(): void {
    this.#attached?.[Symbol.dispose]();
    this.#attached = undefined;
    this.#own = false;
  }

  #check(): void {
    this.#call.signal.throwIfAborted();
    if (this.#deps.drain.aborted && !this.#own) throw draining();
  }

  #begin(run: RunRow): void {
    if (this.#options.afterSeq > run.seq_reserved) throw cursorAhead(this.#options.afterSeq);
    // The last durable event of a run that has ended is its end.
    if (this.#options.liveOnly) this.#cursor = isOver(run) ? run.last_seq - 1n : run.last_seq;
  }

  async #row(): Promise<RunRow> {
    const { tenantId } = this.#call.principal;
    const { runId, reach } = this.#options;
    const row = await this.#deps.database.tenant(tenantId, (tx) => runById(tx, runId), {
      signal: this.#call.signal,
      readOnly: true,
    });
    return row !== undefined && reaches(reach, row) ? row : raise(notFound("run"));
  }

  async #attach(run: RunRow): Promise<Subscription | undefined> {
    const own = this.#deps.liveRuns.get(this.#call.principal.tenantId, run.run_id);
    if (own !== undefined) {
      if (this.#deps.drain.aborted) throw draining();
      this.#own = true;
      return own.log.feed.subscribe();
    }
    // Nobody owns it: it waits, or is about to be taken up.
    if (run.owner_address === "") return undefined;
    const owner = { runId: run.run_id, address: run.owner_address };
    return this.#deps.remoteTails.subscribe(this.#call, owner, this.#stopSignal());
  }

  /** Shows the durable events after the cursor, page by page, and in place of those that are pruned a snapshot. */
  async *#replay(run: RunRow): AsyncGenerator<WatchFrame> {
    const { tenantId } = this.#call.principal;
    if (isPruned(run, this.#cursor)) yield* this.#snapshot();
    for (;;) {
      const page = await this.#deps.database.tenant(
        tenantId,
        (tx) => eventsAfter(tx, this.#options.runId, this.#cursor, REPLAY_PAGE),
        { signal: this.#call.signal, readOnly: true },
      );
      for (const bytes of page) {
        const event = fromBinary(AgentEventSchema, bytes);
        // Between two pages they may have been pruned.
        if (event.prevSeq > this.#cursor) yield* this.#snapshot();
        const frame = this.#show(event);
        if (frame !== undefined) yield frame;
      }
      if (page.length < REPLAY_PAGE) return;
      this.#check();
    }
  }

  async *#snapshot(): AsyncGenerator<WatchFrame> {
    const { runId, reach } = this.#options;
    const { signal, principal } = this.#call;
    const shown = await this.#deps.database.tenant(
      principal.tenantId,
      async (tx) => {
        const run = await runById(tx, runId);
        return run !== undefined && reaches(reach, run) ? { run, snapshot: await snapshotOf(tx, run) } : undefined;
      },
      { signal, readOnly: true, isolation: "repeatable read" },
    );
    const { run, snapshot } = shown ?? raise(notFound("run"));
    if (!isPruned(run, this.#cursor)) return;
    this.#cursor = run.pruned_seq;
    yield this.#control({ kind: "snapshot", snapshot });
  }

  /** Shows what is open as of the cursor. Returns the events beyond it that came along; undefined when the feed has ended. */
  async *#join({ open, queue }: Subscription): AsyncGenerator<WatchFrame, AgentEvent[] | undefined> {
    const model = OpenItemsModel.from(open);
    const beyond = yield* this.#catchUp(queue, model);
    const state = model.snapshot();
    if (beyond !== undefined && state.items.length > 0) yield this.#control({ kind: "open_items", open: state });
    return beyond;
  }

  /**
   * Folds what the feed brings up to the cursor into the model, so that what follows continues exactly there. Returns the
   * events beyond the cursor that came along; undefined when the feed ended before.
   */
  async *#catchUp(queue: EventQueue, model: OpenItemsModel): AsyncGenerator<WatchFrame, AgentEvent[] | undefined> {
    while (model.seq < this.#cursor) {
      if (queue.ended !== undefined) return undefined;
      if ((await this.#wait(queue)) === "idle") yield this.#control({ kind: "heartbeat" });
      this.#check();
      const events = queue.take();
      const beyond = events.findIndex(({ seq }) => seq > this.#cursor);
      for (const event of beyond < 0 ? events : events.slice(0, beyond)) model.apply(event);
      if (beyond >= 0) return events.slice(beyond);
    }
    return [];
  }

  /** Shows what the feed brings, until the run or the feed ends, or something durable went by unseen. */
  async *#live(queue: EventQueue, before: AgentEvent[]): AsyncGenerator<WatchFrame> {
    for (let events = before; ; events = queue.take()) {
      for (const event of events) {
        if (event.seq <= this.#cursor) continue;
        if (event.retention === Retention.DURABLE && event.prevSeq > this.#cursor) return;
        const frame = this.#show(event);
        if (frame !== undefined) yield frame;
        if (this.#ended) return;
      }
      if (queue.ended !== undefined) return;
      if ((await this.#wait(queue)) === "idle") yield this.#control({ kind: "heartbeat" });
      this.#check();
    }
  }

  /** Waits, without an owner to tail, for the run to move on: a wake-up on the bus, or the next look at the row. */
  async *#rest(run: RunRow): AsyncGenerator<WatchFrame> {
    const { tenantId } = this.#call.principal;
    this.#hint ??= new RunHint(this.#deps.bus, runSubject(tenantId, run.run_id));
    const [rhythm, until] =
      run.state === RunState.SUSPENDED
        ? [SUSPENDED_POLL_MS, Number.POSITIVE_INFINITY]
        : [POLL_MS, performance.now() + RETRY_TAIL_MS];
    do {
      await this.#hint.wait(this.#stopSignal(), Math.min(rhythm, this.#patience()));
      this.#check();
      if (this.#patience() <= 0) yield this.#control({ kind: "heartbeat" });
      const now = await this.#row();
      if (isOver(now) || now.last_seq > this.#cursor || now.epoch !== run.epoch || now.state !== run.state) return;
      if (this.#deps.liveRuns.get(tenantId, run.run_id) !== undefined) return;
    } while (performance.now() < until);
  }

  /** The frame for an event, or what takes its place when it is not wanted: nothing, or a sign of life. */
  #show(event: AgentEvent): WatchFrame | undefined {
    this.#cursor = event.seq;
    if (isTerminal(event)) this.#ended = true;
    else if (this.#options.wants !== undefined && !this.#options.wants(event)) {
      return this.#patience() <= 0 ? this.#control({ kind: "heartbeat" }) : undefined;
    }
    this.#shownAt = performance.now();
    return { kind: "event", event };
  }

  #control(frame: WatchFrame): WatchFrame {
    this.#shownAt = performance.now();
    return frame;
  }

  /** How long until a silent stream must show a sign of life. */
  #patience(): number {
    return Math.max(0, this.#shownAt + this.#deps.heartbeatMs - performance.now());
  }
}
