import type { Bus } from "#platform/bus/bus.ts";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { workSubject } from "../runs/run-subject.ts";
import { QUEUE_TOPIC } from "../store/queue-parts.ts";
import {
  countWaiting,
  type ExpiredRun,
  giveBack,
  type RunOfTenant,
  takeDue,
  takeExpired,
} from "../store/queue-store.ts";
import { endExpired } from "./end-expired.ts";
import type { EndQueuedDeps } from "./end-queued.ts";
import { workMessage } from "./enqueue.ts";
import { untilRoom } from "./waits.ts";

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
  /** Told how many runs of all tenants wait. */
  onCounted(waiting: number): void;
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
  /** Tenants that are left alone, and until when by `performance.now()`. */
  readonly #resting = new Map<string, number>();
  #looking: Promise<void> | undefined;
  #again = false;
  #wholeLook = true;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  start(): void {
    const { database, everyMs } = this.#options;
    this.#timer = setInterval(() => {
      this.#wholeLook = true;
      this.nudge();
    }, everyMs);
    // A run of this process has ended, and its session's next one is due.
    this.#unfollow = database.onCommitted(QUEUE_TOPIC, () => this.nudge());
  }

  /**
   * There was no room for a run of this tenant: it is left alone for a while, and its oldest runs come first then, however
   * many others have become due meanwhile.
   */
  rest(tenantId: string): void {
    this.#resting.set(tenantId, performance.now() + untilRoom());
  }

  /** There may be room for this tenant's runs. */
  wake(tenantId: string): void {
    this.#resting.delete(tenantId);
    this.nudge();
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
        const { due, expired } = await this.#take();
        for (const run of expired) {
          // One that cannot be ended must not keep the others.
          await endExpired(this.#options, run, this.#stopped.signal).catch((error: unknown) => this.#failed(error));
        }
        await this.#dispatch(due);
      } catch (error) {
        this.#failed(error);
      }
    }
  }

  #failed(error: unknown): void {
    if (!this.#stopped.signal.aborted) this.#options.log.warn({ err: error }, "agent.queue.look_failed");
  }

  /** What is due; and in every regular look whose time is over, and how many wait. */
  async #take(): Promise<{ due: RunOfTenant[]; expired: ExpiredRun[] }> {
    const { database, perTenant, orphanAfterMs, onCounted } = this.#options;
    const now = performance.now();
    for (const [tenantId, until] of this.#resting) if (until <= now) this.#resting.delete(tenantId);
    const limits = { perTenant, limit: BATCH, dueInMs: orphanAfterMs, except: [...this.#resting.keys()] };
    const whole = this.#wholeLook;
    const taken = await database.worker(
      async (tx) => ({
        expired: whole ? await takeExpired(tx, BATCH) : [],
        due: await takeDue(tx, limits),
        waiting: whole ? await countWaiting(tx) : undefined,
      }),
      { signal: this.#stopped.signal },
    );
    if (taken.waiting !== undefined) onCounted(taken.waiting);
    this.#wholeLook = taken.expired.length === BATCH;
    this.#again ||= this.#wholeLook;
    return taken;
  }

  async #dispatch(due: readonly RunOfTenant[]): Promise<void> {
    if (due.length === 0) return;
    const sent = await Promise.all(due.map((run) => this.#publish(run)));
    const unsent = due.filter((_, i) => sent[i] === false);
    if (unsent.length === 0) return;
    const { signal } = this.#stopped;
    await this.#options.database.worker((tx) => giveBack(tx, unsent, BUS_AWAY_MS), { signal });
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
