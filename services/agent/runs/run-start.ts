import { isId, newId } from "#platform/id.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { isUniqueViolation } from "#platform/postgres/errors.ts";
import { type IdempotentRequest, remembered } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import type { RunPool } from "../admission/run-pool.ts";
import { writeReach } from "../domain/ownership.ts";
import { canonicalInput, type RunInput } from "../domain/run-input.ts";
import { tenantShare } from "../domain/tenant-share.ts";
import { sessionBusy } from "../errors.ts";
import { findSession } from "../sessions/find-session.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import { type RunRow, runById } from "../store/run-store.ts";
import type { HotContext } from "./hot-context.ts";
import { openSession } from "./open-session.ts";
import { type PrepareDeps, type PreparedRun, prepareRun } from "./prepare-run.ts";
import { type BeginDeps, beginWork, type StartedRun } from "./run-begin.ts";

export interface StartDeps extends PrepareDeps, BeginDeps {
  hotContext: HotContext;
  database: Database;
  pool: Pick<RunPool, "enter" | "crowded">;
}

/** A run that an earlier call with the same request id has begun. */
export interface AttachedRun {
  kind: "attached";
  run: RunRow;
  /** Set where the call's message has joined a run that was at work: the message, and what had been stored of the run before. */
  joined?: { messageId: string; afterSeq: bigint };
}

/**
 * Begins a run in one transaction: the request id, the session, the run (leased to this process), the user's message
 * and run_started are there together or not at all. A repeated request attaches to the run of the first one, whatever
 * has become of its session and its agent since.
 */
export async function startRun(deps: StartDeps, call: Call, input: RunInput): Promise<StartedRun | AttachedRun> {
  const options = { signal: call.signal, deadline: call.deadline };
  const inTenant = <T>(fn: (tx: Tx) => Promise<T>) => deps.database.tenant(call.principal.tenantId, fn, options);
  const key = turnKey(call, input);
  const ids = { runId: newId("run"), newSessionId: newId("ses") };
  const { tenantId } = call.principal;
  // Beside everything that follows. Under the caller's own name a session is not known yet.
  const lookup = isId("ses", input.sessionId) ? deps.hotContext.lookUp(tenantId, input.sessionId) : undefined;
  let prepared: PreparedRun;
  try {
    prepared = await prepareRun(deps, call, input, ids);
  } catch (error) {
    const earlier = await earlierAnswer(deps.database, key);
    if (earlier === undefined) throw error;
    return inTenant((tx) => attach(tx, earlier));
  }
  const share = tenantShare(prepared.resolved);
  // Whoever repeats a request attaches to its run, however many others wait.
  if (input.requestId !== "" && deps.pool.crowded(call.principal.tenantId, share.tenantLimit)) {
    const earlier = await earlierAnswer(deps.database, key);
    if (earlier !== undefined) return inTenant((tx) => attach(tx, earlier));
  }
  const permit = await deps.pool.enter({ tenantId, holder: ids.runId, ...share, signal: call.signal });
  let begun: StartedRun | AttachedRun | undefined;
  try {
    begun = await inTenant(async (tx) => {
      const earlier = await remembered(tx, key, Buffer.from(ids.runId));
      if (earlier !== undefined) return attach(tx, earlier);
      const session = await openSession(tx, call, prepared.input, ids.newSessionId);
      const busyWith = session.known?.active_run_id ?? null;
      if (busyWith !== null) throw sessionBusy(busyWith);
      const { known } = session;
      const warm = await (lookup ?? (known && deps.hotContext.lookUp(tenantId, known.session_id)));
      return beginWork(deps, tx, { call, runId: ids.runId, prepared, session, permit, warm });
    });
    return begun;
  } catch (error) {
    // The session's row is locked while a run begins in it; the index stands behind that, should it ever not be.
    if (!isUniqueViolation(error, "runs_active")) throw error;
    const busy = await inTenant((tx) => findSession(tx, input.sessionId, writeReach(call.principal)));
    throw sessionBusy(busy.active_run_id ?? "");
  } finally {
    if (begun?.kind !== "started") permit[Symbol.dispose]();
  }
}

/** The run of an earlier call, from the answer that it was given: the run's id, and what {@link joinedAnswer} adds. */
export async function attach(tx: Tx, response: Uint8Array): Promise<AttachedRun> {
  const [runId = "", messageId, afterSeq = "0"] = Buffer.from(response).toString().split(" ");
  const run = (await runById(tx, runId)) ?? raise(notFound("run"));
  if (messageId === undefined) return { kind: "attached", run };
  return { kind: "attached", run, joined: { messageId, afterSeq: BigInt(afterSeq) } };
}

/** What is remembered of a call whose message has joined a run. */
export function joinedAnswer({ run_id, last_seq }: RunRow, messageId: string): Uint8Array {
  return Buffer.from(`${run_id} ${messageId} ${last_seq}`);
}

/** The key under which a turn is remembered, whatever begins it. */
export function turnKey(call: Call, input: RunInput): IdempotentRequest {
  return { schema: "agent", call, method: "StartRun", requestId: input.requestId, request: canonicalInput(input) };
}
