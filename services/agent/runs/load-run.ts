import { fromBinary } from "@bufbuild/protobuf";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { Database } from "#platform/postgres/database.ts";
import { approvalsOf } from "../store/approval-store.ts";
import { type LedgerEntry, ledgerOf } from "../store/ledger-store.ts";
import { draftOf, eventsOfTypes, planOf } from "../store/resume-store.ts";
import { type RunRow, runById } from "../store/run-store.ts";
import { historyOf, readContext } from "../store/session-context.ts";
import { sessionById } from "../store/session-store.ts";
import type { ResumableRun } from "./run-begin.ts";
import { fromStoredPlan } from "./run-plan.ts";
import { storedWork, WORK_EVENTS } from "./stored-work.ts";

/** A run of this process's as it is stored. */
export interface LoadedRun {
  run: RunRow;
  /** What was booked for it. */
  booked: LedgerEntry[];
  /** What its executor needs to go on; undefined: it cannot be gone on with, because what it was begun with is not stored. */
  started: ResumableRun | undefined;
}

/** Reads a run that was taken over. Undefined when it is gone. */
export async function loadRun(
  database: Database,
  { tenantId, runId, leasedAt, cause }: { tenantId: string; runId: string; leasedAt: number; cause: string },
  signal: AbortSignal,
): Promise<LoadedRun | undefined> {
  const stored = await database.tenant(
    tenantId,
    async (tx) => {
      const run = await runById(tx, runId);
      const session = run && (await sessionById(tx, run.session_id));
      if (run === undefined || session === undefined) return undefined;
      const [plan, draft, booked, context, events, approvals] = await Promise.all([
        planOf(tx, runId),
        draftOf(tx, runId),
        ledgerOf(tx, runId),
        readContext(tx, session.session_id),
        eventsOfTypes(tx, runId, WORK_EVENTS),
        approvalsOf(tx, runId),
      ]);
      const history = historyOf(context, session.message_count);
      return { run, session, plan, draft, booked, history, events, approvals };
    },
    // One moment of the run: its last owner may still be writing what the fence does not let through.
    { signal, readOnly: true, isolation: "repeatable read" },
  );
  if (stored === undefined) return undefined;
  const { run, session, draft, booked, history, approvals } = stored;
  const plan = stored.plan && fromStoredPlan(stored.plan);
  if (plan === undefined) return { run, booked, started: undefined };
  const events = stored.events.map((bytes) => fromBinary(AgentEventSchema, bytes));
  return {
    run,
    booked,
    started: {
      kind: "started",
      run,
      session,
      resolved: plan.resolved,
      chosen: plan.chosen,
      // An answer that took two processes is not kept for others.
      question: { message: "", language: plan.language, standsAlone: false },
      clientTools: plan.clientTools,
      firstStep: undefined,
      history: history.messages,
      historyOmitted: 0,
      notices: [],
      leasedAt,
      resume: {
        work: storedWork(events, draft, plan.earlier),
        booked,
        approvals,
        cause,
        askedIn: draft?.asked_in ?? undefined,
      },
    },
  };
}
