import type { Bus } from "#platform/bus/bus.ts";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { timedOut } from "../runs/run-failure.ts";
import { workSubject } from "../runs/run-subject.ts";
import { QUEUE_TOPIC } from "../store/queue-parts.ts";
import { giveBack, type RunOfTenant, takeDue, takeExpired } from "../store/queue-store.ts";
import { type EndQueuedDeps, endQueued } from "./end-queued.ts";
import { workMessage } from "./enqueue.ts";

/** Runs that are dispatched, or ended, at a time. */
const BATCH = 200;
/** How long a dispatch may take: on the embedded bus it lasts until the run has begun. */
const PUBLISH_MS = 5_000;
/** Before what could not be dispatched is due again. */
const BUS_AWAY_MS = 1_000;

export interface DispatcherOptions extends EndQueuedDeps {
  database: Database;
  bus: Pick<Bus, "publish">;
  log: Log;
  everyMs: number;
  /** Most runs of a tenant in one look. */
  perTenant: number;
  /** How long a queued run is left to whoever the bus told of it. */
  orphanAfterMs: number;
  onDispatched(run: RunOfTenant): void;
}

/**
 * Brings queued runs to the bus that are due: what was put off, what waited for its session, and what was lost on the way
 * (the bus lost its store, whoever took it died). Every replica has one; the rows' locks decide. Ends queued runs whose
 * time is over.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #unfollow: (() => void) | undefined;
  #looking: Promise<void> | undefined;
  #again = false;
  #expiryIsDue = true;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  start(): void {
    const { database, everyMs } = this.#options;
    this.#timer = setInterval(() => {
      this.#expiryIsDue = true;
      this.nudge();
    }, everyMs);
    // A run of this process has ended, and its session's next one is due.
    this.#unfollow = database.onCommitted(QUEUE_TOPIC, () => this.nudge());
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#unfollow?.();
    this.#stopped.abort();
    await this.#looking;
  }

  /** Looks now, and once more when it is at it already. */
  nudge(): void {
    if (this.#stopped.signal.aborted) return;
    this.#again = true;
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
  }

  async #look(): Promise<void> {
    while (this.#again && !this.#stopped.signal.aborted) {
      this.#again = false;
      try {
        if (this.#expiryIsDue) await this.#endExpired();
        await this.#dispatchDue();
      } catch (error) {
        if (!this.#stopped.signal.aborted) this.#options.log.warn({ err: error }, "agent.queue.look_failed");
      }
    }
  }

  async #endExpired(): Promise<void> {
    const { database } = this.#options;
    const { signal } = this.#stopped;
    const expired = await database.worker((tx) => takeExpired(tx, BATCH), { signal });
    for (const run of expired) await endQueued(this.#options, run, timedOut(), { signal });
    this.#expiryIsDue = expired.length === BATCH;
    this.#again ||= this.#expiryIsDue;
  }

  async #dispatchDue(): Promise<void> {
    const { database, perTenant, orphanAfterMs } = this.#options;
    const { signal } = this.#stopped;
    const limits = { perTenant, limit: BATCH, dueInMs: orphanAfterMs };
    const due = await database.worker((tx) => takeDue(tx, limits), { signal });
    if (due.length === 0) return;
    const sent = await Promise.all(due.map((run) => this.#publish(run)));
    const unsent = due.filter((_, i) => sent[i] === false);
    if (unsent.length > 0) await database.worker((tx) => giveBack(tx, unsent, BUS_AWAY_MS), { signal });
  }

  /** False when the bus did not take it. One that the bus has and nobody has begun yet is as good as sent. */
  async #publish(run: RunOfTenant): Promise<boolean> {
    const { bus, onDispatched } = this.#options;
    const { tenantId, runId } = run;
    const late = AbortSignal.timeout(PUBLISH_MS);
    const message = { subject: workSubject(tenantId, runId), id: newId("evt"), data: workMessage(tenantId, runId) };
    try {
      await bus.publish(message, AbortSignal.any([late, this.#stopped.signal]));
    } catch {
      if (!late.aborted) return false;
    }
    onDispatched(run);
    return true;
  }
}
