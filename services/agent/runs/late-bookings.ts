import { toBinary } from "@bufbuild/protobuf";
import { UsageSummarySchema } from "#gen/agentmesh/common/v1/usage_pb.ts";
import { pause } from "#platform/abortable.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { insertCalls, type LedgerEntry, ledgerOf, ledgerRows } from "../store/ledger-store.ts";
import { type Fence, runById, setUsage } from "../store/run-store.ts";
import type { RunIds } from "./event-envelope.ts";
import { isOver } from "./run-state.ts";
import { UsageTotal } from "./usage-total.ts";

/** Calls of models that an owner paid for and could not book with its run's events. */
export interface LateBooking {
  tenantId: string;
  ids: RunIds;
  calls: readonly LedgerEntry[];
}

export interface LateBookingsOptions {
  database: Database;
  log: Log;
  /** Wait between two attempts while the database is away. */
  retryMs: number;
}

/** Calls that wait at most; what comes above is told to the log in full and forgotten. */
export const MOST_LATE_CALLS = 10_000;
const ATTEMPT_MS = 5_000;
/** The database is away, or busy with the same row; anything else it would say again. */
const PASSING: ReadonlySet<string | undefined> = new Set(["DEPENDENCY_DOWN", "CONCURRENT_CHANGE", "DEADLINE"]);

/**
 * Books what owners paid for when their runs were already lost to them. It goes past the fence, and may: it adds rows to
 * the ledger, each once, and changes nothing that another owner has written. The usage of a run that is over becomes the
 * sum of its rows again; one that goes on reads them at its end. Tried until the database takes it.
 */
export class LateBookings {
  readonly #options: LateBookingsOptions;
  readonly #stopped = new AbortController();
  #waiting: LateBooking[] = [];
  #working: Promise<void> | undefined;

  constructor(options: LateBookingsOptions) {
    this.#options = options;
  }

  /** Calls that are not booked yet. */
  get size(): number {
    return this.#waiting.reduce((sum, { calls }) => sum + calls.length, 0);
  }

  add(booking: LateBooking): void {
    if (booking.calls.length === 0) return;
    const isFull = this.size + booking.calls.length > MOST_LATE_CALLS;
    if (isFull || this.#stopped.signal.aborted) {
      this.#forget(booking);
      return;
    }
    this.#waiting.push(booking);
    this.#working ??= this.#work();
  }

  /** Everything is tried once more; what cannot be booked now is told to the log. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#working;
    for (const booking of this.#waiting.splice(0)) this.#forget(booking);
  }

  async #work(): Promise<void> {
    const { signal } = this.#stopped;
    try {
      for (let booking = this.#waiting[0]; booking !== undefined; booking = this.#waiting[0]) {
        if (await this.#isDone(booking)) this.#waiting.shift();
        else if (signal.aborted) return;
        else await pause(this.#options.retryMs, signal).catch(() => {});
      }
    } finally {
      this.#working = undefined;
    }
  }

  /** True when the booking has been made, or never can be. */
  async #isDone({ tenantId, ids, calls }: LateBooking): Promise<boolean> {
    try {
      await this.#options.database.tenant(
        tenantId,
        async (tx) => {
          // Whoever ends the run has done so before, and then it is settled here, or does so after, and sees these rows.
          const run = await runById(tx, ids.runId, true);
          await insertCalls(tx, { ...ids, endUserId: run?.end_user_id ?? "" }, calls);
          if (run !== undefined && isOver(run)) await settleUsage(tx, ids.runId);
        },
        { deadline: Date.now() + ATTEMPT_MS },
      );
      return true;
    } catch (error) {
      if (PASSING.has(reasonOf(error))) return false;
      this.#forget({ tenantId, ids, calls }, error);
      return true;
    }
  }

  /** Whoever keeps accounts can still enter them. */
  #forget({ tenantId, ids, calls }: LateBooking, error?: unknown): void {
    const about = { event: "agent.usage.not_booked", tenant_id: tenantId, run_id: ids.runId };
    const details = JSON.parse(ledgerRows(calls)) as unknown;
    this.#options.log.error({ ...about, details, err: error }, "calls of a model are not booked");
  }
}

/**
 * What a run has used that other owners than this one have worked on too: its rows, and this one's calls that are not
 * written yet.
 */
export async function usageSoFar(
  database: Database,
  { tenantId, runId }: Pick<Fence, "tenantId" | "runId">,
  unbooked: readonly LedgerEntry[],
): Promise<UsageTotal> {
  const rows = await database.tenant(tenantId, (tx) => ledgerOf(tx, runId), {
    readOnly: true,
    deadline: Date.now() + ATTEMPT_MS,
  });
  const total = new UsageTotal();
  const byId = new Map([...unbooked, ...rows].map((call) => [call.entryId, call]));
  for (const call of byId.values()) total.add(call);
  return total;
}

/** Makes the usage of a run that is over the sum of its rows. The transaction holds the run's row. */
export async function settleUsage(tx: Tx, runId: string): Promise<void> {
  const total = new UsageTotal();
  for (const call of await ledgerOf(tx, runId)) total.add(call);
  await setUsage(tx, runId, toBinary(UsageSummarySchema, total.summary()));
}
