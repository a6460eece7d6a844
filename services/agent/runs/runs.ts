import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { audit } from "#platform/postgres/audit.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { notFound, raise, reasonOf } from "#platform/rpc/errors.ts";
import type { Cursor } from "../domain/cursor.ts";
import { type Reach, reaches, readReach, writeReach } from "../domain/ownership.ts";
import type { RunInput } from "../domain/run-input.ts";
import { LeaseLost } from "../errors.ts";
import * as store from "../store/run-store.ts";
import type { Subscription } from "./live-feed.ts";
import type { LiveRun, LiveRuns } from "./live-runs.ts";
import { CancelRequest, type RunExecutor } from "./run-executor.ts";
import { RunLog } from "./run-log.ts";
import { FIRST_SEQ, type StartDeps, type StartedRun, startRun } from "./run-start.ts";
import { isOver } from "./run-state.ts";
import { type WatchDeps, type WatchFrame, watchRun } from "./watch.ts";

export interface RunsDeps extends StartDeps, WatchDeps {
  liveRuns: LiveRuns;
  executor: RunExecutor;
  /** Tells watchers everywhere that a run has new durable events. */
  announce(tenantId: string, event: AgentEvent): void;
  /** Asks the owner of a run, another replica, to cancel it. */
  cancelAt(call: Call, address: string, runId: string, cause: string): Promise<void>;
}

/** A run that a call has begun or attached to, and a place at its feed when it is new. */
export interface OpenedRun {
  run: store.RunRow;
  /** The session id that the caller knows. */
  sessionId: string;
  fresh: { subscription: Subscription; seq: bigint; firstEvent: AgentEvent } | undefined;
}

/** How long a cancelled run may take to write its end before the caller is answered. */
const CANCEL_WAIT_MS = 5_000;
const CANCEL_POLL_MS = 50;

/** Runs: begun here, executed here or elsewhere, watched from anywhere. */
export class Runs {
  readonly #deps: RunsDeps;

  constructor(deps: RunsDeps) {
    this.#deps = deps;
  }

  /** Begins a run, or attaches to the one that an earlier call with the same request id began. */
  async open(call: Call, input: RunInput): Promise<OpenedRun> {
    const started = await startRun(this.#deps, call, input);
    const sessionId = input.sessionId === "" ? started.run.session_id : input.sessionId;
    if (started.kind === "attached") return { run: started.run, sessionId, fresh: undefined };
    return { run: started.run, sessionId, fresh: this.#launch(call, started) };
  }

  /** Events of a run as they come; see watchRun. */
  watch(
    call: Call,
    options: { runId: string; afterSeq: bigint; liveOnly?: boolean; fresh?: OpenedRun["fresh"] },
  ): AsyncGenerator<WatchFrame> {
    const { runId, afterSeq, liveOnly = false, fresh } = options;
    return watchRun(this.#deps, call, { runId, afterSeq, liveOnly, reach: readReach(call.principal), fresh });
  }

  async get(call: Call, runId: string): Promise<store.RunRow> {
    return this.#find(call, runId, readReach(call.principal));
  }

  async list(
    call: Call,
    filter: Omit<store.RunFilter, "endUserId">,
    page: { limit: number; after: Cursor | undefined },
  ): Promise<store.RunRow[]> {
    const { endUserId } = readReach(call.principal);
    return this.#deps.database.tenant(
      call.principal.tenantId,
      (tx) => store.listRuns(tx, { ...filter, endUserId }, page),
      {
        signal: call.signal,
        readOnly: true,
      },
    );
  }

  async events(call: Call, runId: string, afterSeq: bigint, limit: number): Promise<AgentEvent[]> {
    await this.get(call, runId);
    const page = await this.#deps.database.tenant(
      call.principal.tenantId,
      (tx) => store.eventsAfter(tx, runId, afterSeq, limit),
      { signal: call.signal, readOnly: true },
    );
    return page.map((bytes) => fromBinary(AgentEventSchema, bytes));
  }

  /** Cancels a run wherever it is owned and waits until its end is written. On a run that has ended it changes nothing. */
  async cancel(call: Call, runId: string, cause: string): Promise<store.RunRow> {
    const run = await this.#find(call, runId, writeReach(call.principal));
    if (isOver(run)) return run;
    const { database } = this.#deps;
    await database.tenant(call.principal.tenantId, (tx) =>
      audit(tx, "agent", call, {
        type: "run.cancelled",
        resource: runId,
        sessionId: run.session_id,
        details: { cause },
      }),
    );
    const own = this.cancelOwned(call.principal.tenantId, runId, cause);
    if (own !== undefined) await own;
    else {
      // An owner that is gone cannot be asked; the reaper will end the run.
      await this.#deps.cancelAt(call, run.owner_address, runId, cause).catch((error: unknown) => {
        if (reasonOf(error) === undefined) throw error;
      });
    }
    return this.#ended(call, runId);
  }

  /** Cancels a run that this process owns; undefined when it does not. Resolves when the run has ended. */
  cancelOwned(tenantId: string, runId: string, cause: string): Promise<void> | undefined {
    const live = this.#deps.liveRuns.get(tenantId, runId);
    if (live === undefined) return undefined;
    live.controller.abort(new CancelRequest(cause));
    return live.finished;
  }

  /** A place at the feed of a run that this process owns; undefined when it does not. */
  subscribeOwned(tenantId: string, runId: string): Subscription | undefined {
    return this.#deps.liveRuns.get(tenantId, runId)?.log.feed.subscribe();
  }

  #launch(call: Call, started: StartedRun): OpenedRun["fresh"] {
    const { tenantId } = call.principal;
    const { run, session } = started;
    const firstEvent = fromBinary(AgentEventSchema, started.firstEvent);
    const log = new RunLog({
      database: this.#deps.database,
      fence: { tenantId, runId: run.run_id, owner: run.owner, epoch: run.epoch },
      ids: { runId: run.run_id, sessionId: session.session_id, agentId: run.agent_id },
      lastDurableSeq: FIRST_SEQ,
      nextSeq: FIRST_SEQ + 1n,
      retryForMs: this.#deps.leaseMs,
      onCommitted: (event) => this.#deps.announce(tenantId, event),
    });
    const subscription = log.feed.subscribe();
    const controller = new AbortController();
    const finished = this.#deps.executor.execute(withSignal(call, controller.signal), started, log);
    const live: LiveRun = { log, controller, finished };
    this.#deps.liveRuns.add(live);
    return { subscription, seq: FIRST_SEQ, firstEvent };
  }

  async #find(call: Call, runId: string, reach: Reach): Promise<store.RunRow> {
    const run = await this.#deps.database.tenant(call.principal.tenantId, (tx) => store.runById(tx, runId), {
      signal: call.signal,
      readOnly: true,
    });
    return run !== undefined && reaches(reach, run) ? run : raise(notFound("run"));
  }

  async #ended(call: Call, runId: string): Promise<store.RunRow> {
    const until = performance.now() + CANCEL_WAIT_MS;
    for (;;) {
      const run = await this.get(call, runId);
      if (isOver(run) || performance.now() > until) return run;
      await new Promise((resolve) => setTimeout(resolve, CANCEL_POLL_MS));
    }
  }
}

/** Gives a run up: its lease is lost, so nothing more may be written, and its readers go on with the log. */
export function abandon(run: LiveRun): void {
  run.controller.abort(new LeaseLost(run.log.ids.runId));
  run.log.feed.close();
}
