import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { OpenItems } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import type { Bus } from "#platform/bus/bus.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { type Reach, reaches } from "../domain/ownership.ts";
import { cursorAhead, draining } from "../errors.ts";
import { eventsAfter, type RunRow, runById } from "../store/run-store.ts";
import { isTerminal } from "./event-envelope.ts";
import type { Subscription } from "./live-feed.ts";
import type { LiveRuns } from "./live-runs.ts";
import { OpenItemsModel } from "./open-items.ts";
import type { RemoteTails } from "./remote-tails.ts";
import { isOver } from "./run-state.ts";
import { runSubject } from "./run-subject.ts";

const REPLAY_PAGE = 500;
/** How often a run is looked at while its owner cannot be tailed; a wake-up on the bus is usually faster. */
const POLL_MS = 500;

/** What a watcher is shown. */
export type WatchFrame =
  | { kind: "event"; event: AgentEvent }
  | { kind: "caught_up"; seq: bigint }
  | { kind: "open_items"; open: OpenItems }
  | { kind: "heartbeat" };

export interface WatchOptions {
  runId: string;
  afterSeq: bigint;
  /** Skip the replay. */
  liveOnly: boolean;
  reach: Reach;
  /** A place at the feed of a run that was started by this very call: nothing needs to be replayed. */
  fresh?: { subscription: Subscription; seq: bigint } | undefined;
}

export interface WatchDeps {
  database: Database;
  bus: Bus;
  liveRuns: LiveRuns;
  remoteTails: RemoteTails;
  heartbeatMs: number;
  /** Aborts when this process drains: watchers are sent to another replica. */
  drain: AbortSignal;
}

/**
 * Watches a run from any replica: the durable events after the cursor from Postgres, then `caught_up`, what is open at
 * the owner, and everything live until the terminal event. The feed is joined before the log is read, so nothing falls
 * between; events that come by both ways are told apart by seq; a break in the prev_seq chain sends the reader back to
 * the log. Ends without a terminal event only by throwing.
 */
export async function* watchRun(deps: WatchDeps, call: Call, options: WatchOptions): AsyncGenerator<WatchFrame> {
  const watcher = new Watcher(deps, call, options);
  try {
    yield* watcher.frames();
  } finally {
    await watcher.close();
  }
}

class Watcher {
  readonly #deps: WatchDeps;
  readonly #call: Call;
  readonly #options: WatchOptions;
  readonly #signal: AbortSignal;
  #cursor: bigint;
  #ended = false;
  #attached: Subscription | undefined;
  #listening: { unsubscribe(): Promise<void> } | undefined;
  #woken: (() => void) | undefined;

  constructor(deps: WatchDeps, call: Call, options: WatchOptions) {
    this.#deps = deps;
    this.#call = call;
    this.#options = options;
    this.#cursor = options.afterSeq;
    this.#signal = AbortSignal.any([call.signal, deps.drain]);
  }

  async *frames(): AsyncGenerator<WatchFrame> {
    const { fresh } = this.#options;
    let first = true;
    if (fresh !== undefined) {
      this.#attached = fresh.subscription;
      this.#cursor = fresh.seq;
      yield* this.#live(OpenItemsModel.from(fresh.subscription.open));
      first = false;
    }
    while (!this.#ended) {
      this.#checkSignal();
      const run = await this.#row();
      if (first && this.#options.afterSeq > run.seq_reserved) throw cursorAhead(this.#options.afterSeq);
      if (first && this.#options.liveOnly) this.#cursor = run.last_seq;
      this.#attached = isOver(run) ? undefined : await this.#attach(run);
      const model = OpenItemsModel.from(this.#attached?.open ?? new OpenItemsModel().snapshot());
      yield* this.#replay(model);
      if (first) yield { kind: "caught_up", seq: this.#cursor };
      first = false;
      if (this.#ended) return;
      if (this.#attached === undefined) {
        if (isOver(run)) return;
        yield* this.#rest(run);
        continue;
      }
      yield* this.#catchUp(this.#attached, model);
      const open = model.snapshot();
      if (open.items.length > 0) yield { kind: "open_items", open };
      yield* this.#live(model);
    }
  }

  async close(): Promise<void> {
    this.#detach();
    await this.#listening?.unsubscribe();
  }

  #detach(): void {
    this.#attached?.[Symbol.dispose]();
    this.#attached = undefined;
  }

  #checkSignal(): void {
    if (this.#call.signal.aborted) throw this.#call.signal.reason;
    if (this.#deps.drain.aborted) throw draining();
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
    if (own !== undefined) return own.log.feed.subscribe();
    return this.#deps.remoteTails.subscribe(this.#call, { runId: run.run_id, address: run.owner_address });
  }

  /** Shows the durable events after the cursor, page by page. */
  async *#replay(model: OpenItemsModel): AsyncGenerator<WatchFrame> {
    const { tenantId } = this.#call.principal;
    for (;;) {
      const page = await this.#deps.database.tenant(
        tenantId,
        (tx) => eventsAfter(tx, this.#options.runId, this.#cursor, REPLAY_PAGE),
        { signal: this.#call.signal, readOnly: true },
      );
      for (const bytes of page) {
        const event = fromBinary(AgentEventSchema, bytes);
        this.#cursor = event.seq;
        // An item that was open when the feed was joined may have been completed by now.
        if (event.seq > model.seq) model.apply(event);
        yield* this.#show(event);
      }
      if (page.length < REPLAY_PAGE) return;
      this.#checkSignal();
    }
  }

  /** Folds what the feed has shown up to the cursor into the model, so that what follows continues exactly there. */
  async *#catchUp({ queue }: Subscription, model: OpenItemsModel): AsyncGenerator<WatchFrame> {
    while (model.seq < this.#cursor && queue.ended === undefined) {
      await queue.wait(this.#signal, this.#deps.heartbeatMs);
      this.#checkSignal();
      const events = queue.take();
      const at = events.findIndex(({ seq }) => seq > this.#cursor);
      for (const event of at < 0 ? events : events.slice(0, at)) model.apply(event);
      if (at < 0) continue;
      for (const event of events.slice(at)) {
        model.apply(event);
        yield* this.#advance(event);
      }
      return;
    }
  }

  async *#live(model: OpenItemsModel): AsyncGenerator<WatchFrame> {
    const attached = this.#attached;
    if (attached === undefined) return;
    const { queue } = attached;
    while (!this.#ended) {
      if ((await queue.wait(this.#signal, this.#deps.heartbeatMs)) === "idle") {
        yield { kind: "heartbeat" };
        continue;
      }
      this.#checkSignal();
      for (const event of queue.take()) {
        if (event.seq <= model.seq || event.seq <= this.#cursor) continue;
        if (event.retention === Retention.DURABLE && event.prevSeq > this.#cursor) {
          // Something durable went by unseen: only the log can tell what.
          this.#detach();
          return;
        }
        yield* this.#advance(event);
        if (this.#ended) return;
      }
      if (queue.ended !== undefined) {
        this.#detach();
        return;
      }
    }
  }

  *#advance(event: AgentEvent): Generator<WatchFrame> {
    if (event.seq <= this.#cursor) return;
    this.#cursor = event.seq;
    yield* this.#show(event);
  }

  *#show(event: AgentEvent): Generator<WatchFrame> {
    yield { kind: "event", event };
    if (isTerminal(event)) this.#ended = true;
  }

  /** Waits, without an owner to tail, for the run to move on: a wake-up on the bus, or the next look at the row. */
  async *#rest(run: RunRow): AsyncGenerator<WatchFrame> {
    this.#listening ??= await this.#deps.bus.listen(
      runSubject(this.#call.principal.tenantId, this.#options.runId),
      () => this.#woken?.(),
    );
    const silentSince = performance.now();
    for (;;) {
      await this.#pause(POLL_MS);
      this.#checkSignal();
      const now = await this.#row();
      if (isOver(now) || now.last_seq > this.#cursor || now.epoch !== run.epoch) return;
      if (this.#deps.liveRuns.get(this.#call.principal.tenantId, run.run_id) !== undefined) return;
      if (performance.now() - silentSince > this.#deps.heartbeatMs) return yield { kind: "heartbeat" };
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        this.#signal.removeEventListener("abort", finish);
        this.#woken = undefined;
        resolve();
      };
      const timer = setTimeout(finish, ms);
      this.#signal.addEventListener("abort", finish, { once: true });
      this.#woken = finish;
    });
  }
}
