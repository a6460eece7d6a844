import type { Database, Tx } from "#platform/postgres/database.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { RunPool } from "../admission/run-pool.ts";
import { tenantShare } from "../domain/tenant-share.ts";
import { type PrepareDeps, prepareRun } from "../runs/prepare-run.ts";
import { type BeginDeps, beginWork, type StartedRun } from "../runs/run-begin.ts";
import type { RunEnd } from "../runs/run-end.ts";
import { endOf, isPassing, timedOut } from "../runs/run-failure.ts";
import { storedCall } from "../runs/stored-call.ts";
import {
  claimQueued,
  hasOlderQueued,
  lockQueued,
  putOff,
  type QueuedRun,
  type RunOfTenant,
} from "../store/queue-store.ts";
import { sessionById } from "../store/session-store.ts";
import { type EndQueuedDeps, endQueued } from "./end-queued.ts";
import { givenUp, isRefusal, lostEachTime } from "./give-up.ts";
import { storedInput } from "./stored-input.ts";
import { afterFailure, aside, untilPassed } from "./waits.ts";

export interface ActivationDeps extends PrepareDeps, BeginDeps, EndQueuedDeps {
  database: Database;
  pool: Pick<RunPool, "tryEnter">;
  /** How long a queued run is left to whoever the bus told of it. */
  orphanAfterMs: number;
  /** Failures to begin it for a reason inside the server. */
  maxAttempts: number;
  /** Works on a run that was begun here until it has ended; never throws or rejects. */
  launch(call: Call, started: StartedRun): Promise<void>;
  /** Told of what went wrong inside the server. */
  onFailure(run: RunOfTenant, error: unknown, attempts: number): void;
}

/**
 * What became of a queued run: it was begun here; it does not wait any more; it has ended without having begun; it waits
 * for its session, for room, or for what is away or has failed; it was given up.
 */
export type Activated = "begun" | "gone" | "ended" | "session_busy" | "no_room" | "failed" | "dead";

/**
 * Begins a queued run by the same code as a turn that somebody waits for, as the principal that it was queued for and with
 * the agent as it is now. When this returns, the database says how it goes on: the run is leased to this process, or it has
 * ended, or it is due again at some time. Throws when the database could not be told; then it is due again, too.
 */
export async function activate(deps: ActivationDeps, run: RunOfTenant, signal: AbortSignal): Promise<Activated> {
  const claim = (tx: Tx) => claimQueued(tx, run.runId, deps.orphanAfterMs);
  failpoint("activation.before-claim");
  const queued = await deps.database.tenant(run.tenantId, claim, { signal });
  failpoint("activation.after-claim");
  if (queued === undefined) return "gone";
  const end = (how: RunEnd, what: "ended" | "dead") =>
    endQueued(deps, run, how, { signal }).then((ended) => (ended ? what : "gone"));
  if (queued.deadline !== null && queued.deadline.getTime() <= Date.now()) return end(timedOut(), "ended");
  if (queued.attempts > deps.maxAttempts) return end(lostEachTime(deps.maxAttempts), "dead");
  try {
    return await begin(deps, run, queued, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (isRefusal(error)) return end(endOf(error, signal), "ended");
    const passing = isPassing(error);
    if (!passing) deps.onFailure(run, error, queued.attempts);
    if (!passing && queued.attempts >= deps.maxAttempts) return end(givenUp(error, queued.attempts), "dead");
    const wait = passing ? untilPassed(queued.queued_at) : afterFailure(queued.attempts);
    await postpone(deps, run, wait, passing ? "does not count" : "counts", signal);
    return "failed";
  }
}

async function begin(
  deps: ActivationDeps,
  run: RunOfTenant,
  queued: QueuedRun,
  signal: AbortSignal,
): Promise<Activated> {
  const { tenantId, runId } = run;
  const call = storedCall(queued.principal, signal);
  const input = storedInput(queued);
  const prepared = await prepareRun(deps, call, input, { runId, newSessionId: queued.session_id });
  // Not by the run's name alone: another process may try at the same time, and what it gives back is not ours.
  const holder = `${runId}.${deps.owner}`;
  const permit = await deps.pool.tryEnter({ tenantId, holder, ...tenantShare(prepared.resolved) });
  if (permit === undefined) {
    await postpone(deps, run, aside(), "does not count", signal);
    return "no_room";
  }
  let begun: StartedRun | undefined;
  try {
    const outcome = await deps.database.tenant(
      tenantId,
      async (tx): Promise<StartedRun | "gone" | "session_busy"> => {
        if (!(await lockQueued(tx, runId))) return "gone";
        const session = await sessionById(tx, queued.session_id, true);
        if (session === undefined) return "gone";
        const holds = session.active_run_id === runId;
        // Whoever holds the session wakes the next one at its end.
        if (!holds && (session.active_run_id !== null || (await hasOlderQueued(tx, session.session_id, runId)))) {
          await putOff(tx, runId, deps.orphanAfterMs, "does not count");
          return "session_busy";
        }
        const place = queued.background ? "background" : "turn";
        const known = { row: session, known: session };
        return beginWork(deps, tx, { call, runId, prepared, session: known, permit, queued: place });
      },
      { signal },
    );
    if (typeof outcome === "string") return outcome;
    begun = outcome;
  } finally {
    if (begun === undefined) permit[Symbol.dispose]();
  }
  failpoint("activation.before-launch");
  void deps.launch(storedCall(queued.principal, new AbortController().signal), begun);
  return "begun";
}

async function postpone(
  { database }: ActivationDeps,
  { tenantId, runId }: RunOfTenant,
  dueInMs: number,
  attempt: "counts" | "does not count",
  signal: AbortSignal,
): Promise<void> {
  await database.tenant(tenantId, (tx) => putOff(tx, runId, dueInMs, attempt), { signal });
}
