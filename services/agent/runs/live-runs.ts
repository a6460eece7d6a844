import type { Database } from "#platform/postgres/database.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { renewLeases } from "../store/run-store.ts";
import type { RunLog } from "./run-log.ts";

/** A run that this process owns and works on. */
export interface LiveRun {
  readonly log: RunLog;
  /** Ends the work; the reason is a CancelRequest, or LeaseLost. */
  readonly controller: AbortController;
  /** Resolves when the run has ended or was given up; never rejects. */
  readonly finished: Promise<void>;
}

export interface LiveRunsOptions {
  database: Database;
  owner: string;
  leaseMs: number;
  heartbeatMs: number;
  log: Log;
  /** Told of each run whose lease is lost. */
  onLost(run: LiveRun): void;
}

/**
 * The runs of this process, and the heartbeat that keeps their leases: one statement for all of them. A run whose lease
 * could not be renewed in time is given up before another process may own it.
 */
export class LiveRuns {
  readonly #runs = new Map<string, LiveRun>();
  readonly #options: LiveRunsOptions;
  readonly #renewedAt = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #beating: Promise<void> = Promise.resolve();

  constructor(options: LiveRunsOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#runs.size;
  }

  get(tenantId: string, runId: string): LiveRun | undefined {
    const run = this.#runs.get(runId);
    return run?.log.fence.tenantId === tenantId ? run : undefined;
  }

  all(): LiveRun[] {
    return [...this.#runs.values()];
  }

  add(run: LiveRun): void {
    const { runId } = run.log.fence;
    this.#runs.set(runId, run);
    this.#renewedAt.set(runId, performance.now());
    void run.finished.then(() => {
      this.#runs.delete(runId);
      this.#renewedAt.delete(runId);
    });
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#beating = this.#beat();
    }, this.#options.heartbeatMs);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#beating;
  }

  async #beat(): Promise<void> {
    const { database, owner, leaseMs, log } = this.#options;
    const fences = this.all().map((run) => run.log.fence);
    if (fences.length === 0) return;
    const sentAt = performance.now();
    try {
      const kept = await database.worker((tx) => renewLeases(tx, owner, fences, leaseMs));
      for (const { runId } of fences) {
        if (kept.has(runId)) this.#renewedAt.set(runId, sentAt);
        else if (this.#runs.has(runId)) this.#giveUp(runId);
      }
    } catch (error) {
      log.warn({ err: error }, "agent.lease.renewal_failed");
    }
    // The database may have been away for so long that the lease has run out by its clock.
    for (const [runId, renewedAt] of this.#renewedAt) {
      if (performance.now() - renewedAt > leaseMs) this.#giveUp(runId);
    }
  }

  #giveUp(runId: string): void {
    const run = this.#runs.get(runId);
    if (run !== undefined) this.#options.onLost(run);
  }
}
