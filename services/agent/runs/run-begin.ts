import { toBinary } from "@bufbuild/protobuf";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { newId } from "#platform/id.ts";
import type { AuditEvent } from "#platform/postgres/audit.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import type { RunPermit } from "../admission/run-pool.ts";
import type { StoredClientTool } from "../domain/client-tools.ts";
import { languageOf, routingFacts } from "../domain/routing-facts.ts";
import type { RunInput } from "../domain/run-input.ts";
import { isToldOf, profileMessage } from "../domain/user-profile.ts";
import type { ResumedWork } from "../engine/loop-input.ts";
import type { ModelMessage } from "../llm/chat-model.ts";
import { ModelError } from "../llm/model-error.ts";
import type { ChosenModels } from "../llm/routing.ts";
import type { ApprovalRow } from "../store/approval-store.ts";
import type { LedgerEntry } from "../store/ledger-store.ts";
import type { RunRow } from "../store/run-store.ts";
import { beginRun, type NewEvent } from "../store/run-writes.ts";
import { contextMessage, extended, historyOf, readContext, type SessionContext } from "../store/session-context.ts";
import type { SessionRow } from "../store/session-store.ts";
import { durableEvent, type EventBody, type RunIds } from "./event-envelope.ts";
import { type BegunContext, isCurrent, type WarmContext } from "./hot-context.ts";
import type { Question } from "./last-resort.ts";
import type { OpenSession } from "./open-session.ts";
import type { PreparedRun, StartNotice } from "./prepare-run.ts";
import type { RunModels } from "./run-models.ts";
import { type KnownPlans, toStoredPlan } from "./run-plan.ts";

const NOTHING: SessionContext = { front: [], rest: [], first: 1 };

/** seq of run_started, the first event of every run. */
const FIRST_SEQ = 1n;

export interface BeginDeps {
  owner: string;
  ownerAddress: string;
  leaseMs: number;
  models: Pick<RunModels, "choose" | "firstStep">;
  knownPlans: KnownPlans;
}

/** Provider and model of a run's first step. */
export interface FirstStep {
  provider: string;
  model: string;
}

/** How far earlier attempts have come. */
export interface Resumption {
  work: ResumedWork;
  /** What they have cost. */
  booked: readonly LedgerEntry[];
  /** What people were asked, in that order. */
  approvals: readonly ApprovalRow[];
  /** Why the run goes on: "owner_lost", or what it had waited for. */
  cause: string;
  /** The run in whose name the calls of the open step were asked for; undefined: this one. */
  askedIn?: string | undefined;
}

/** A run that this call has begun, with all that its executor needs. */
export interface StartedRun {
  kind: "started";
  run: RunRow;
  session: Pick<SessionRow, "session_id" | "end_user_id">;
  resolved: ResolveAgentResponse;
  /** The models that are asked; or why there are none, which the run then fails with. */
  chosen: ChosenModels | ModelError;
  /** What may be answered without a model. */
  question: Pick<Question, "message" | "language" | "standsAlone">;
  /** Tools that the caller executes. */
  clientTools: readonly StoredClientTool[];
  /** To be told to who watches. */
  notices: readonly StartNotice[];
  /** The step whose step_started is stored with run_started. */
  firstStep: FirstStep | undefined;
  /** What the model is shown, with the message that is to be answered at its end. */
  history: ModelMessage[];
  /** Older messages of the session that are left out. */
  historyOmitted: number;
  /** Of the session as the run has begun; absent: this is not the first attempt, or others may have changed the session. */
  context?: BegunContext | undefined;
  /** Absent: this is the first attempt. */
  resume?: Resumption;
  /** `performance.now()` before the lease was taken. */
  leasedAt: number;
  /** Leave to work on it; to be given back when that is over. */
  permit: RunPermit;
}

/** A run that can be gone on with, and has no permit yet. */
export type ResumableRun = Omit<StartedRun, "permit">;

/** What a run is begun with, where it is free to begin. */
export interface RunToBegin {
  call: Call;
  runId: string;
  prepared: PreparedRun;
  /** Locked by the transaction when it is known, and occupied by no other run. */
  session: OpenSession;
  permit: RunPermit;
  /** What the cache had of the session. */
  warm?: WarmContext | undefined;
  /** Its row is there and waits, and the transaction has locked its place in the queue. */
  queued?: "background" | "turn" | undefined;
}

/**
 * Begins a run, leased to this process, with the user's message and run_started; all together in the transaction's last
 * statement, which ends it.
 */
export async function beginWork(
  deps: BeginDeps,
  tx: Tx,
  { call, runId, prepared: { resolved, input, notices, suspicions }, session, permit, queued, warm }: RunToBegin,
): Promise<StartedRun> {
  const agent = resolved.agent ?? raise(notFound("agent"));
  const { session_id: sessionId, end_user_id: endUserId } = session.row;
  const { known } = session;
  const context = known === undefined ? NOTHING : await contextOf(tx, known, warm);
  const messagesBefore = known?.message_count ?? 0;
  const earlier = historyOf(context, messagesBefore);
  const chosen = chooseModels(deps, resolved, input, messagesBefore);
  const { agentId, version: agentVersion } = agent;
  const added = newMessages(resolved, input, earlier.messages, endUserId);
  const inputMessageId = added.at(-1)?.id ?? "";
  const firstStep = chosen instanceof Error ? undefined : deps.models.firstStep(chosen, resolved);
  const model = chosen instanceof Error ? agent.llmModel : (chosen.rungs[0]?.model ?? "");
  const bodies: EventBody[] = [
    { payload: { case: "runStarted", value: { inputMessageId, agentVersion, model } } },
    ...(firstStep === undefined
      ? []
      : [{ payload: { case: "stepStarted" as const, value: { step: 1, ...firstStep } } }]),
  ];
  const events = startEvents({ runId, sessionId, agentId }, bodies);
  const language = resolved.userProfile?.language || languageOf(input);
  const { retention } = resolved;
  const messages = added.map(({ id = "", ...message }) => ({ messageId: id, json: JSON.stringify(message) }));
  const { clientTools = [] } = input;
  const plan = toStoredPlan({ resolved, chosen, language, clientTools });
  const leasedAt = performance.now();
  failpoint("run-begin.before-store");
  const run = await beginRun(tx, {
    run: {
      runId,
      endUserId,
      agentId,
      agentVersion,
      principal: call.principal,
      owner: deps.owner,
      ownerAddress: deps.ownerAddress,
      leaseMs: deps.leaseMs,
      timeLimitMs: input.timeLimitMs,
    },
    queued,
    session:
      session.known === undefined ? { created: { sessionId, agentId: input.agentId } } : { continued: session.known },
    messages,
    events,
    openStep: firstStep === undefined ? 0 : 1,
    kept: { sessionDays: retention?.sessionDays ?? 0, eventDays: retention?.runEventDays ?? 0 },
    plan: { ...plan, shared: deps.knownPlans.has(call.principal.tenantId, plan.planId) ? undefined : plan.shared },
    audited: { call, events: auditOf(input, { runId, sessionId, agentId, agentVersion }, session, suspicions) },
  });
  // beginRun has committed.
  deps.knownPlans.add(call.principal.tenantId, plan.planId);
  return {
    kind: "started",
    run,
    session: session.row,
    resolved,
    chosen,
    question: {
      message: input.message,
      language,
      standsAlone: messagesBefore === 0 && input.attachments.length === 0 && Object.keys(input.context).length === 0,
    },
    clientTools,
    firstStep,
    notices,
    history: [...earlier.messages, ...added],
    historyOmitted: earlier.omitted,
    context: {
      state: {
        // The begin has raised it where the session was there.
        version: known === undefined ? 1 : known.version + 1,
        message_count: messagesBefore + added.length,
        compaction_id: known?.compaction_id ?? null,
      },
      context: extended(context, messages.map(contextMessage)),
    },
    leasedAt,
    permit,
  };
}

/** What is stored of the session: as the cache has it, if it still does, else as it is read. */
async function contextOf(tx: Tx, session: SessionRow, warm: WarmContext | undefined): Promise<SessionContext> {
  return warm !== undefined && isCurrent(warm, session) ? warm.context : readContext(tx, session.session_id);
}

/** The first events of a run, as they are stored. */
export function startEvents(ids: RunIds, bodies: readonly EventBody[]): NewEvent[] {
  return bodies.map((body, i) => {
    const seq = FIRST_SEQ + BigInt(i);
    const event = durableEvent(ids, seq, seq - 1n, body);
    return { seq, type: event.type, event: toBinary(AgentEventSchema, event) };
  });
}

function chooseModels(
  { models }: BeginDeps,
  resolved: ResolveAgentResponse,
  input: RunInput,
  messagesBefore: number,
): ChosenModels | ModelError {
  try {
    return models.choose(resolved, routingFacts(resolved, input, messagesBefore));
  } catch (error) {
    if (error instanceof ModelError) return error;
    throw error;
  }
}

/** The user's message, and in front of it what is known of the user, where the model does not know it yet. */
function newMessages(
  { userProfile }: ResolveAgentResponse,
  { message, attachments }: RunInput,
  earlier: readonly ModelMessage[],
  endUserId: string,
): ModelMessage[] {
  const asked: ModelMessage = {
    role: "user",
    id: newId("msg"),
    content: [{ type: "text", text: message }, ...attachments],
  };
  if (userProfile === undefined || userProfile.endUserId !== endUserId) return [asked];
  const profile = profileMessage(userProfile, newId("msg"));
  return profile === undefined || isToldOf(earlier, profile) ? [asked] : [profile, asked];
}

function auditOf(
  input: RunInput,
  {
    runId,
    sessionId,
    agentId,
    agentVersion,
  }: { runId: string; sessionId: string; agentId: string; agentVersion: number },
  { known }: OpenSession,
  suspicions: readonly string[],
): AuditEvent[] {
  const details = { agent_id: agentId, agent_version: agentVersion, message_characters: input.message.length };
  const events: AuditEvent[] = [{ type: "run.started", resource: runId, sessionId, details }];
  if (known === undefined) events.unshift({ type: "session.created", resource: sessionId, sessionId });
  if (suspicions.length > 0) {
    events.push({ type: "input.flagged", resource: runId, sessionId, details: { patterns: suspicions } });
  }
  return events;
}
