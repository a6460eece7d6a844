import type { Database } from "#platform/postgres/database.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { LeaseLost } from "../errors.ts";
import { releaseLeases, renewLeases } from "../store/lease-store.ts";
import type { RunLog } from "./run-log.ts";

/** A run that this process owns and works on. */
export interface LiveRun {
  readonly log: RunLog;
  /** Ends the work; the reason is a CancelRequest, or LeaseLost. */
  readonly controller: AbortController;
  /** Resolves when the run has ended or was given up; never rejects. */
  readonly finished: Promise<void>;
  /** `performance.now()` before the lease was taken. */
  readonly leasedAt: number;
}

export interface LiveRunsOptions {
  database: Database;
  owner: string;
  leaseMs: number;
  heartbeatMs: number;
  log: Log;
}

/** Gives a run up: its lease is lost, so nothing more may be written, and its readers go on with the log. */
export function abandon(run: LiveRun): void {
  run.controller.abort(new LeaseLost(run.log.ids.runId));
  run.log.abandon();
}

/**
 * The runs of this process, and the heartbeat that keeps their leases: one statement for all of them. A run whose lease
 * could not be renewed in time is given up, by this process's own clock, about when another one may own it.
 */
export class LiveRuns {
  readonly #runs = new Map<string, LiveRun>();
  readonly #options: LiveRunsOptions;
  readonly #renewedAt = new Map<string, number>();
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #beating: Promise<void> | undefined;

  constructor(options: LiveRunsOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#runs.size;
  }

  /** The run, when this process works on it: not when it has ended or was given up. */
  get(tenantId: string, runId: string): LiveRun | undefined {
    const run = this.#runs.get(runId);
    return run?.log.fence.tenantId === tenantId && !run.log.feed.closed ? run : undefined;
  }

  all(): LiveRun[] {
    return [...this.#runs.values()];
  }

  add(run: LiveRun): void {
    const { runId } = run.log.fence;
    // A lease can run out while its owner is busy, and its own reaper be the one that takes the run.
    const earlier = this.#runs.get(runId);
    if (earlier !== undefined) this.#giveUp(runId, earlier);
    this.#runs.set(runId, run);
    this.#renewedAt.set(runId, run.leasedAt);
    const remove = () => this.#remove(runId, run);
    run.finished.then(remove, remove);
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#giveUpExpired();
      // One at a time: a database that does not answer must not collect heartbeats.
      this.#beating ??= this.beat().finally(() => {
        this.#beating = undefined;
      });
    }, this.#options.heartbeatMs);
  }

  /**
   * Hands all runs over: this process writes nothing more to them, and any other may take them at once. Where the database
   * does not hear of it, they are taken when their leases end.
   */
  async handOver(): Promise<void> {
    const { database, owner, log, heartbeatMs } = this.#options;
    const runs = this.all();
    if (runs.length === 0) return;
    for (const run of runs) abandon(run);
    await Promise.all(runs.map(({ finished }) => finished));
    const fences = runs.map((run) => run.log.fence);
    try {
      await database.worker((tx) => releaseLeases(tx, owner, fences), { deadline: Date.now() + heartbeatMs });
    } catch (error) {
      log.warn({ err: error }, "agent.lease.release_failed");
    }
  }

  /** Ends the heartbeat. Runs that are still here lose their leases. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopped.abort();
    await this.#beating;
  }

  /** One heartbeat. Never throws. */
  async beat(): Promise<void> {
    const { database, owner, leaseMs, heartbeatMs, log } = this.#options;
    const runs = this.all();
    if (runs.length === 0) return;
    const sentAt = performance.now();
    try {
      const held = runs.map((run) => ({ fence: run.log.fence, nextSeq: run.log.nextSeq }));
      const options = { signal: this.#stopped.signal, deadline: Date.now() + heartbeatMs };
      failpoint("live-runs.before-renewal");
      const { renewed, lost } = await database.worker((tx) => renewLeases(tx, owner, held, leaseMs), options);
      for (const run of runs) {
        const { runId } = run.log.fence;
        if (renewed.has(runId) && this.#runs.get(runId) === run) this.#renewedAt.set(runId, sentAt);
        else if (lost.has(runId)) this.#giveUp(runId, run);
      }
    } catch (error) {
      if (!this.#stopped.signal.aborted) log.warn({ err: error }, "agent.lease.renewal_failed");
    }
    this.#giveUpExpired();
  }

  /** The database may have been away for so long that leases have run out by its clock. */
  #giveUpExpired(): void {
    const now = performance.now();
    for (const [runId, renewedAt] of this.#renewedAt) {
      const run = this.#runs.get(runId);
      if (run !== undefined && now - renewedAt > this.#options.leaseMs) this.#giveUp(runId, run);
    }
  }

  #giveUp(runId: string, run: LiveRun): void {
    if (this.#remove(runId, run)) abandon(run);
  }

  #remove(runId: string, run: LiveRun): boolean {
    if (this.#runs.get(runId) !== run) return false;
    this.#runs.delete(runId);
    this.#renewedAt.delete(runId);
    return true;
  }
}
