import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { endSuspended } from "../approvals/end-suspended.ts";
import { timedOut } from "../runs/run-failure.ts";
import { storedCall } from "../runs/stored-call.ts";
import type { ExpiredRun } from "../store/queue-store.ts";
import { runById } from "../store/run-store.ts";
import { type EndQueuedDeps, endQueued } from "./end-queued.ts";

/** Ends a run that nobody works on and whose time is over. Does nothing when it goes on, or has ended, at this moment. */
export async function endExpired(deps: EndQueuedDeps, run: ExpiredRun, signal: AbortSignal): Promise<void> {
  if (run.state === RunState.QUEUED) {
    await endQueued(deps, run, timedOut(), { signal });
    return;
  }
  const { database, announce } = deps;
  const stored = await database.tenant(run.tenantId, (tx) => runById(tx, run.runId), { signal, readOnly: true });
  if (stored === undefined) return;
  const ended = await endSuspended(database, run, timedOut(), storedCall(stored.principal, signal));
  if (ended !== undefined) announce(ended.tenantId, ended.newest);
}
