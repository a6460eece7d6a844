import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { remembered } from "#platform/postgres/idempotency.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import type { RunPermit } from "../admission/run-pool.ts";
import { canonical } from "../domain/canonical.ts";
import { reaches, writeReach } from "../domain/ownership.ts";
import { tenantShare } from "../domain/tenant-share.ts";
import { endedBefore } from "../engine/ended-before.ts";
import { goOnAfterBreak, hiddenMessage } from "../engine/hidden-messages.ts";
import type { ResumedWork } from "../engine/loop-input.ts";
import { runNotRetryable, sessionBusy } from "../errors.ts";
import type { ModelMessage } from "../llm/chat-model.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import { draftOf, eventsOfTypes, planOf, type StoredDraft } from "../store/resume-store.ts";
import { newestRunOf, type RunRow, runById } from "../store/run-store.ts";
import { beginRun } from "../store/run-writes.ts";
import { historyOf, readContext } from "../store/session-context.ts";
import { type SessionRow, sessionById } from "../store/session-store.ts";
import type { EventBody } from "./event-envelope.ts";
import { type StartedRun, startEvents } from "./run-begin.ts";
import { fromStoredPlan, type RunPlan, toStoredPlan } from "./run-plan.ts";
import { type AttachedRun, attach, type StartDeps } from "./run-start.ts";
import { stateName } from "./run-state.ts";
import { storedWork, WORK_EVENTS } from "./stored-work.ts";

/** How long after its end a run may be retried that had asked for calls: tools know their keys no longer than that. */
export const CALLS_KEPT_MS = 24 * 3_600_000;

/** Events that are shown once more for a step that is gone on with. */
const STEP_EVENTS = ["message_completed", "reasoning_completed", "tool_call_requested", "tool_call_completed"] as const;

/**
 * Goes on with a failed run in a new one: with its plan, its session as it stands, and the step that it has left open, whose
 * calls keep their keys. It works for whom the failed one worked for. A repeated request attaches to the run of the first.
 */
export async function retryRun(
  deps: StartDeps,
  call: Call,
  { runId, requestId }: { runId: string; requestId: string },
): Promise<StartedRun | AttachedRun> {
  const { tenantId } = call.principal;
  const options = { signal: call.signal, deadline: call.deadline };
  const inTenant = <T>(fn: (tx: Tx) => Promise<T>) => deps.database.tenant(tenantId, fn, options);
  const key = {
    schema: "agent",
    call,
    method: "RunService.RetryRun",
    requestId,
    request: canonical({ runId }),
  };
  const earlier = await earlierAnswer(deps.database, key);
  if (earlier !== undefined) return inTenant((tx) => attach(tx, earlier));
  const { plan } = await inTenant((tx) => readFailed(tx, call, runId));
  const retryId = newId("run");
  const permit = await deps.pool.enter({
    tenantId,
    holder: retryId,
    ...tenantShare(plan.resolved),
    signal: call.signal,
  });
  let begun: StartedRun | AttachedRun | undefined;
  try {
    begun = await inTenant(async (tx) => {
      const answer = await remembered(tx, key, Buffer.from(retryId));
      return answer === undefined ? write(deps, tx, call, { runId, retryId }, permit) : attach(tx, answer);
    });
    return begun;
  } finally {
    if (begun?.kind !== "started") permit[Symbol.dispose]();
  }
}

interface FailedRun {
  run: RunRow;
  session: SessionRow;
  plan: RunPlan;
  draft: StoredDraft | undefined;
}

/** The run, when it may be retried now; else why not. With `lock` nothing else begins in its session meanwhile. */
async function readFailed(tx: Tx, call: Call, runId: string, lock = false): Promise<FailedRun> {
  const run = await runById(tx, runId);
  if (run === undefined || !reaches(writeReach(call.principal), run)) throw notFound("run");
  const session = (await sessionById(tx, run.session_id, lock)) ?? raise(notFound("run"));
  const state = stateName(run);
  if (run.state !== RunState.FAILED) throw runNotRetryable({ state });
  if (session.active_run_id !== null) throw sessionBusy(session.active_run_id);
  const newest = await newestRunOf(tx, run.session_id);
  if (newest !== runId) throw runNotRetryable({ state, newer_run_id: newest ?? "" });
  const stored = await planOf(tx, runId);
  const plan = stored && fromStoredPlan(stored);
  if (plan === undefined) throw runNotRetryable({ state, missing: "plan" });
  const draft = await draftOf(tx, runId);
  const endedMs = Date.now() - (run.end_time?.getTime() ?? 0);
  if (draft !== undefined && endedMs > CALLS_KEPT_MS) throw runNotRetryable({ state, missing: "call_keys" });
  return { run, session, plan, draft };
}

async function write(
  deps: StartDeps,
  tx: Tx,
  call: Call,
  { runId, retryId }: { runId: string; retryId: string },
  permit: RunPermit,
): Promise<StartedRun> {
  const { run: failed, session, plan, draft } = await readFailed(tx, call, runId, true);
  const { resolved, chosen, language, clientTools } = plan;
  const types = ["run_started", ...WORK_EVENTS, ...STEP_EVENTS];
  const events = (await eventsOfTypes(tx, runId, types)).map((bytes) => fromBinary(AgentEventSchema, bytes));
  const work = storedWork(events, draft, plan.earlier);
  const { messages: history, omitted } = historyOf(await readContext(tx, session.session_id), session.message_count);
  const toolTurns = resolved.agent?.maxIterations ?? 20;
  const added = brokenOff(work, history, toolTurns) ? [hiddenMessage(goOnAfterBreak, newId("msg"))] : [];
  const { session_id: sessionId, agent_id: agentId, agent_version: agentVersion, principal } = failed;
  const bodies: EventBody[] = [{ payload: startedBody(events) }, ...stepBodies(events, draft)];
  const ids = { runId: retryId, sessionId, agentId: failed.agent_id };
  const { openStep, ...earlier } = work;
  if (openStep !== undefined) earlier.toolTurns -= 1;
  const stored = toStoredPlan({ resolved, chosen, language, clientTools, earlier });
  const leasedAt = performance.now();
  failpoint("retry-run.before-begin");
  const run = await beginRun(tx, {
    run: {
      runId: retryId,
      endUserId: failed.end_user_id,
      agentId,
      agentVersion,
      principal,
      owner: deps.owner,
      ownerAddress: deps.ownerAddress,
      leaseMs: deps.leaseMs,
    },
    session: { continued: session },
    messages: added.map(({ id = "", ...message }) => ({ messageId: id, json: JSON.stringify(message) })),
    events: startEvents(ids, bodies),
    openStep: draft?.step ?? 0,
    plan: stored,
    kept: { sessionDays: resolved.retention?.sessionDays ?? 0, eventDays: resolved.retention?.runEventDays ?? 0 },
    retryOf: runId,
    audited: {
      call,
      events: [{ type: "run.retried", resource: retryId, sessionId, details: { retry_of: runId, agent_id: agentId } }],
    },
  });
  return {
    kind: "started",
    run,
    session,
    resolved,
    chosen,
    clientTools,
    // An answer that took two runs is not kept for others.
    question: { message: "", language, standsAlone: false },
    firstStep: undefined,
    notices: [],
    history: [...history, ...added],
    historyOmitted: omitted,
    // What the failed run has cost is booked with it.
    resume: { work, booked: [], approvals: [], cause: "retry", askedIn: draft && (draft.asked_in ?? runId) },
    leasedAt,
    permit,
  };
}

/** Whether the history ends with an answer that is no end, so that the model must be told to go on. */
function brokenOff(work: ResumedWork, history: readonly ModelMessage[], maxIterations: number): boolean {
  if (work.openStep !== undefined || history.at(-1)?.role !== "assistant" || work.lastFinish === "pause") return false;
  // A step whose model has failed has added nothing: the answer in front of it is no prepared one.
  if (work.lastFinish === "error") delete work.lastFinish;
  return endedBefore({ resume: work, history, limits: { maxIterations } }) === undefined;
}

function startedBody(events: readonly AgentEvent[]): EventBody["payload"] {
  const started = events[0]?.payload;
  // They are kept for a time.
  if (started?.case !== "runStarted") throw runNotRetryable({ state: "FAILED", missing: "events" });
  return { case: "runStarted", value: started.value };
}

/** The open step as the failed run has shown it, so that a reader of the new one sees what is gone on with. */
function stepBodies(events: readonly AgentEvent[], draft: StoredDraft | undefined): EventBody[] {
  if (draft === undefined) return [];
  const begin = events.findLastIndex(
    ({ payload }) => payload.case === "stepStarted" && payload.value.step === draft.step,
  );
  const shown = events
    .slice(begin + 1)
    .filter(({ type, payload }) => payload.case !== undefined && (STEP_EVENTS as readonly string[]).includes(type));
  return [...events.slice(begin, begin + 1), ...shown].map(({ payload, itemId }) => ({ payload, itemId }) as EventBody);
}
