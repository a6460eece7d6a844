import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { pause } from "#platform/abortable.ts";
import { newId } from "#platform/id.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { RunInput } from "../domain/run-input.ts";
import { type EnqueueDeps, enqueueRun } from "../queue/enqueue.ts";
import { readSession } from "../runs/open-session.ts";
import { checkInput } from "../runs/prepare-run.ts";
import type { StartedRun } from "../runs/run-begin.ts";
import { fromStoredPlan } from "../runs/run-plan.ts";
import { type AttachedRun, attach, joinedAnswer, type StartDeps, startRun, turnKey } from "../runs/run-start.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import { planOf } from "../store/resume-store.ts";
import { runById } from "../store/run-store.ts";
import { storeInput } from "./send-input.ts";

/** Tries of one turn to get its way, while others begin in its session. */
export const BUSY_TRIES = 20;
const BUSY_RETRY_MS = 50;

export interface TurnDeps extends StartDeps, EnqueueDeps {
  /** Cancels a run wherever it is owned, and waits until its end is written. */
  interrupt(call: Call, runId: string): Promise<void>;
}

/**
 * Begins a turn. Where its session has a run in progress, its policy says what becomes of the two (`on_busy`); a repeated
 * request attaches to what became of the first.
 */
export async function beginTurn(deps: TurnDeps, call: Call, input: RunInput): Promise<StartedRun | AttachedRun> {
  const { onBusy } = input;
  if (onBusy === undefined) return startRun(deps, call, input);
  for (let tries = 1; ; tries++) {
    const busyWith = await activeRun(deps, call, input);
    // Looked for behind the run that is in progress: were that run this very request's, it would be found here.
    const earlier = busyWith === undefined ? undefined : await earlierAnswer(deps.database, turnKey(call, input));
    if (earlier !== undefined) return inTenant(deps, call, (tx) => attach(tx, earlier));
    if (busyWith !== undefined) {
      if (onBusy === "enqueue")
        return { kind: "attached", run: await enqueueRun(deps, call, input, { whenBusy: "wait" }) };
      const joined = onBusy === "steer" ? await steer(deps, call, input, busyWith) : undefined;
      if (joined !== undefined) return joined;
      if (onBusy === "interrupt") await deps.interrupt(call, busyWith);
    }
    try {
      return await startRun(deps, call, input);
    } catch (error) {
      // Somebody else has begun in between.
      if (reasonOf(error) !== "SESSION_BUSY" || tries >= BUSY_TRIES) throw error;
    }
    await pause(BUSY_RETRY_MS, call.signal);
  }
}

function inTenant<T>({ database }: TurnDeps, call: Call, fn: (tx: Tx) => Promise<T>): Promise<T> {
  return database.tenant(call.principal.tenantId, fn, { signal: call.signal, deadline: call.deadline });
}

async function activeRun(deps: TurnDeps, call: Call, input: RunInput): Promise<string | undefined> {
  return inTenant(deps, call, async (tx) => (await readSession(tx, call, input))?.active_run_id ?? undefined);
}

/** Has the message join the run. Undefined when the run has ended meanwhile, or has not begun. */
async function steer(deps: TurnDeps, call: Call, input: RunInput, runId: string): Promise<AttachedRun | undefined> {
  const { run, resolved } = await inTenant(deps, call, async (tx) => {
    const stored = await planOf(tx, runId);
    return { run: await runById(tx, runId), resolved: stored && fromStoredPlan(stored)?.resolved };
  });
  const isAtWork = run?.state === RunState.RUNNING || run?.state === RunState.SUSPENDED;
  if (!isAtWork || resolved === undefined) return undefined;
  const { session_id: sessionId, end_user_id: endUserId } = run;
  const prepared = await checkInput(deps, call, resolved, input, { sessionId, runId, endUserId });
  try {
    return await inTenant(deps, call, async (tx) => {
      const { response } = await idempotent(tx, turnKey(call, input), async () => {
        const messageId = newId("msg");
        return joinedAnswer(await storeInput(tx, call, runId, messageId, prepared), messageId);
      });
      return attach(tx, response);
    });
  } catch (error) {
    if (reasonOf(error) === "RUN_NOT_ACTIVE") return undefined;
    throw error;
  }
}
