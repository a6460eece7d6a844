import type { Database } from "#platform/postgres/database.ts";
import { IDEMPOTENCY_KEPT_HOURS } from "#platform/postgres/idempotency.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { PLAN_KNOWN_MS } from "../runs/run-plan.ts";
import * as store from "../store/retention-store.ts";
import { SESSION_DELETED } from "./eraser.ts";
import { jobCall } from "./job-call.ts";

/** Sessions or runs that are looked at in one statement. */
const BATCH = 200;
const ANSWERS_BATCH = 5_000;
const HOUR_MS = 3_600_000;
/** Over the time for which processes take a plan for stored: a run that is just beginning may refer to it. */
const UNUSED_PLAN_MS = 24 * PLAN_KNOWN_MS;

export interface ExpiryOptions {
  database: Database;
  log: Log;
  onExpired(tenantId: string, sessions: number): void;
  onPruned(tenantId: string): void;
  /** Events that one transaction prunes at most; default PRUNED_EVENTS. */
  events?: number | undefined;
}

/** What a round has done. */
export interface Expiries {
  /** Deleted, to be erased by the eraser. */
  sessions: number;
  /** Runs whose events were pruned. */
  runs: number;
  answers: number;
  plans: number;
}

/**
 * Ends what is kept for a time: sessions and events by their tenants' policies, which a turn stamps on their rows, so that
 * no other service is asked; answers to repeated requests, and plans that no run refers to. Every replica may run one.
 */
export class Expiry {
  readonly #options: ExpiryOptions;

  constructor(options: ExpiryOptions) {
    this.#options = options;
  }

  async round(signal: AbortSignal): Promise<Expiries> {
    const { database } = this.#options;
    const sessions = await this.#sessions(signal);
    const runs = await this.#runs(signal);
    let answers = 0;
    for (let count = ANSWERS_BATCH; count >= ANSWERS_BATCH; answers += count) {
      count = await store.removeOldAnswers(database, IDEMPOTENCY_KEPT_HOURS * HOUR_MS, ANSWERS_BATCH, signal);
    }
    const plans = await store.removeUnusedPlans(database, UNUSED_PLAN_MS, signal);
    return { sessions, runs, answers, plans };
  }

  async #sessions(signal: AbortSignal): Promise<number> {
    const { database, onExpired } = this.#options;
    let count = 0;
    for await (const due of this.#due(store.expiredSessions, signal)) {
      for (const [tenantId, sessions] of Map.groupBy(due, (one) => one.tenantId)) {
        await this.#tried({ tenant_id: tenantId }, signal, async () => {
          const ids = sessions.map(({ id }) => id);
          const deleted = await database.tenant(
            tenantId,
            async (tx) => {
              const gone = await store.expireSessions(tx, ids, jobCall(tenantId, signal));
              if (gone.length > 0) tx.announce(SESSION_DELETED);
              return gone.length;
            },
            { signal },
          );
          count += deleted;
          if (deleted > 0) onExpired(tenantId, deleted);
        });
      }
    }
    return count;
  }

  async #runs(signal: AbortSignal): Promise<number> {
    const { database, events, onPruned } = this.#options;
    let count = 0;
    for await (const due of this.#due(store.expiredRuns, signal)) {
      for (const { tenantId, id } of due) {
        await this.#tried({ tenant_id: tenantId, run_id: id }, signal, async () => {
          for (;;) {
            const end = await database.tenant(tenantId, (tx) => store.pruneSome(tx, id, events), { signal });
            if (end === "more") continue;
            if (end === "done") {
              count++;
              onPruned(tenantId);
            }
            return;
          }
        });
      }
    }
    return count;
  }

  /** What is due, page by page; what could not be done stays behind. */
  async *#due(read: typeof store.expiredRuns, signal: AbortSignal): AsyncGenerator<store.Expired[]> {
    let after: store.Expired | undefined;
    for (;;) {
      const due = await read(this.#options.database, { after, limit: BATCH }, signal);
      if (due.length > 0) yield due;
      if (due.length < BATCH) return;
      after = due.at(-1);
    }
  }

  /** What fails for one does not keep the others. */
  async #tried(about: { tenant_id: string; run_id?: string }, signal: AbortSignal, act: () => Promise<void>) {
    try {
      await act();
    } catch (error) {
      signal.throwIfAborted();
      const fields = { event: "agent.expiry_failed", ...about, err: error };
      this.#options.log.warn(fields, "what is past its time could not be removed; it is tried again");
    }
  }
}
