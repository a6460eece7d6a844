import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { Database } from "#platform/postgres/database.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { adapterOf } from "../adapters/adapters.ts";
import { LeaseLost } from "../errors.ts";
import { finishWithInputs } from "../steering/run-inputs.ts";
import { type ClaimedRun, claimExpired } from "../store/lease-store.ts";
import { SEQ_BLOCK } from "../store/run-store.ts";
import { type LoadedRun, loadRun } from "./load-run.ts";
import type { ResumableRun } from "./run-begin.ts";
import { ownerLost, poisoned, type RunEnd } from "./run-end.ts";
import { RunLog } from "./run-log.ts";
import { storedCall } from "./stored-call.ts";
import { UsageTotal } from "./usage-total.ts";

/** Runs that are claimed at a time; what is left is for the other replicas, or for the next time. */
const BATCH = 8;

export interface ReaperOptions {
  database: Database;
  owner: string;
  address: string;
  leaseMs: number;
  everyMs: number;
  log: Log;
  /** Tells watchers everywhere that a run has new durable events. */
  announce(tenantId: string, event: AgentEvent): void;
  /** Attempts at a run, the first included. */
  maxAttempts: number;
  /** Goes on with a run whose lease was taken; never throws. */
  takeUp(call: Call, started: ResumableRun): void;
  /** Told of each run that goes on here, and of each that was ended, for the metrics. */
  onTakenUp(tenantId: string, runId: string, attempt: number): void;
  onReaped(tenantId: string, runId: string): void;
}

/**
 * Takes up runs whose owner is gone: takes their lease with the next epoch (so that the old owner, should it wake, can
 * write nothing), and goes on with them from what is stored. A run that has lost its owner too often ends as run_failed
 * RUN_POISONED, one of which too little is stored as OWNER_LOST. Every replica runs one; the claim decides.
 */
export class Reaper {
  readonly #options: ReaperOptions;
  readonly #stopped = new AbortController();
  /** The signal of calls that go on beyond this round. */
  readonly #given = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;
  /** A round that is under way may have looked too early. */
  #again = false;

  constructor(options: ReaperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.#work(), this.#options.everyMs);
  }

  /** Looks at once: a run of which nobody had to wait for the end of a lease may be there. */
  nudge(): void {
    if (this.#stopped.signal.aborted) return;
    this.#again = this.#working !== undefined;
    this.#work();
  }

  #work(): void {
    if (this.#working === undefined) this.#again = false;
    this.#working ??= this.reap().finally(() => {
      this.#working = undefined;
      if (this.#again && !this.#stopped.signal.aborted) this.#work();
    });
  }

  /** What it has taken and not ended is found again, by another process, when its own lease expires. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopped.abort();
    await this.#working;
  }

  /** One round. Never throws: what fails now is found again when the lease that it took expires. */
  async reap(): Promise<void> {
    const { database, owner, address, leaseMs } = this.#options;
    const { signal } = this.#stopped;
    // While one batch is loaded, the next one is claimed.
    let loading: Promise<unknown> = Promise.resolve();
    try {
      for (;;) {
        const leasedAt = performance.now();
        const claimed = await database.worker((tx) => claimExpired(tx, { owner, address, leaseMs }, BATCH), { signal });
        if (claimed.length > 0) failpoint("reaper.after-claim");
        await loading;
        // At the same time: their leases run while each of them is loaded.
        loading = Promise.all(
          claimed.map((run) =>
            // One run that cannot be taken up must not keep the others.
            this.#takeUp(run, leasedAt).catch((error: unknown) => this.#failed(error, { run_id: run.runId })),
          ),
        );
        signal.throwIfAborted();
        if (claimed.length < BATCH) break;
      }
    } catch (error) {
      this.#failed(error, {});
    }
    await loading;
  }

  #failed(error: unknown, about: { run_id?: string }): void {
    if (this.#stopped.signal.aborted) return;
    this.#options.log.warn({ err: error, ...about }, "agent.reaper.failed");
  }

  async #takeUp({ tenantId, runId, resumeCause }: ClaimedRun, leasedAt: number): Promise<void> {
    const { database, owner, maxAttempts } = this.#options;
    const { signal } = this.#stopped;
    const cause = resumeCause ?? "owner_lost";
    const loaded = await loadRun(database, { tenantId, runId, leasedAt, cause }, signal);
    if (loaded === undefined || loaded.run.owner !== owner) return;
    const { run, started } = loaded;
    if (started === undefined) return this.#end(tenantId, loaded, ownerLost());
    if (run.attempt > maxAttempts) {
      return this.#end(tenantId, loaded, maxAttempts === 1 ? ownerLost() : poisoned(maxAttempts));
    }
    this.#options.takeUp(storedCall(run.principal, this.#given.signal), started);
    if (resumeCause === null) this.#options.onTakenUp(tenantId, runId, run.attempt);
  }

  async #end(tenantId: string, { run, booked, started }: LoadedRun, end: RunEnd): Promise<void> {
    const { database, owner, leaseMs } = this.#options;
    const { signal } = this.#stopped;
    const runId = run.run_id;
    const usage = new UsageTotal();
    for (const call of booked) usage.add(call);
    const runLog = new RunLog({
      database,
      fence: { tenantId, runId, owner, epoch: run.epoch },
      ids: { runId, sessionId: run.session_id, agentId: run.agent_id },
      lastDurableSeq: run.last_seq,
      nextSeq: run.seq_reserved - SEQ_BLOCK + 1n,
      hasDraft: true,
      retryForMs: leaseMs,
      onCommitted: (event) => this.#options.announce(tenantId, event),
    });
    if (run.open_step !== 0) {
      runLog.append({
        body: { payload: { case: "itemDiscarded", value: { step: run.open_step, cause: "owner_lost" } } },
      });
    }
    const hides = adapterOf(started?.resolved.agent?.adapter ?? "")?.hides;
    const abandon = () => runLog.abandon();
    signal.addEventListener("abort", abandon, { once: true });
    try {
      failpoint("reaper.before-end");
      const context = { usage: usage.summary(), call: storedCall(run.principal, signal), run, shared: true };
      await finishWithInputs(database, runLog, end, context, hides);
      failpoint("reaper.after-end");
      this.#options.onReaped(tenantId, runId);
    } catch (error) {
      if (!(error instanceof LeaseLost)) throw error;
    } finally {
      signal.removeEventListener("abort", abandon);
    }
  }
}
