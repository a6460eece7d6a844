import { toBinary } from "@bufbuild/protobuf";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { newId } from "#platform/id.ts";
import { type AuditEvent, audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { isUniqueViolation } from "#platform/postgres/errors.ts";
import { remembered } from "#platform/postgres/idempotency.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import type { RunPermit, RunPool } from "../admission/run-pool.ts";
import { ownerFor, reaches, writeReach } from "../domain/ownership.ts";
import { languageOf, routingFacts } from "../domain/routing-facts.ts";
import { canonicalInput, type RunInput } from "../domain/run-input.ts";
import { tenantShare } from "../domain/tenant-share.ts";
import { isToldOf, profileMessage } from "../domain/user-profile.ts";
import type { ResumedWork } from "../engine/loop-input.ts";
import { sessionBusy } from "../errors.ts";
import type { ModelMessage } from "../llm/chat-model.ts";
import { ModelError } from "../llm/model-error.ts";
import type { ChosenModels } from "../llm/routing.ts";
import { findSession, isExternalId } from "../sessions/sessions.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import type { LedgerEntry } from "../store/ledger-store.ts";
import { type History, sessionHistory } from "../store/message-store.ts";
import { type RunRow, runById } from "../store/run-store.ts";
import { beginRun } from "../store/run-writes.ts";
import { insertSession, type SessionRow, sessionByExternalId } from "../store/session-store.ts";
import { durableEvent, type EventBody } from "./event-envelope.ts";
import type { Question } from "./last-resort.ts";
import { type PrepareDeps, type PreparedRun, prepareRun, type StartNotice } from "./prepare-run.ts";
import type { RunModels } from "./run-models.ts";
import { type KnownPlans, toStoredPlan } from "./run-plan.ts";

/** seq of run_started, the first event of every run. */
const FIRST_SEQ = 1n;

export interface StartDeps extends PrepareDeps {
  database: Database;
  owner: string;
  ownerAddress: string;
  leaseMs: number;
  models: Pick<RunModels, "choose" | "firstStep">;
  knownPlans: KnownPlans;
  pool: Pick<RunPool, "enter" | "crowded">;
}

/** Provider and model of a run's first step. */
export interface FirstStep {
  provider: string;
  model: string;
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
  /** To be told to who watches. */
  notices: readonly StartNotice[];
  /** The step whose step_started is stored with run_started. */
  firstStep: FirstStep | undefined;
  /** What the model is shown, with the message that is to be answered at its end. */
  history: ModelMessage[];
  /** Older messages of the session that are left out. */
  historyOmitted: number;
  /** How far earlier attempts have come, and what they have cost; absent: this is the first. */
  resume?: { work: ResumedWork; booked: readonly LedgerEntry[] };
  /** `performance.now()` before the lease was taken. */
  leasedAt: number;
  /** Leave to work on it; to be given back when that is over. */
  permit: RunPermit;
}

/** A run that can be gone on with, and has no permit yet. */
export type ResumableRun = Omit<StartedRun, "permit">;

/** A run that an earlier call with the same request id has begun. */
export interface AttachedRun {
  kind: "attached";
  run: RunRow;
}

/**
 * Begins a run in one transaction: the request id, the session, the run (leased to this process), the user's message
 * and run_started are there together or not at all. A repeated request attaches to the run of the first one, whatever
 * has become of its session and its agent since.
 */
export async function startRun(deps: StartDeps, call: Call, input: RunInput): Promise<StartedRun | AttachedRun> {
  const options = { signal: call.signal, deadline: call.deadline };
  const inTenant = <T>(fn: (tx: Tx) => Promise<T>) => deps.database.tenant(call.principal.tenantId, fn, options);
  const key = { schema: "agent", call, method: "StartRun", requestId: input.requestId, request: canonicalInput(input) };
  const ids = { runId: newId("run"), newSessionId: newId("ses") };
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
  const { tenantId } = call.principal;
  const permit = await deps.pool.enter({ tenantId, holder: ids.runId, ...share, signal: call.signal });
  let begun: StartedRun | AttachedRun | undefined;
  try {
    begun = await inTenant(async (tx) => {
      const earlier = await remembered(tx, key, Buffer.from(ids.runId));
      return earlier === undefined ? write(deps, tx, call, prepared, ids, permit) : attach(tx, earlier);
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

async function attach(tx: Tx, response: Uint8Array): Promise<AttachedRun> {
  const run = await runById(tx, Buffer.from(response).toString());
  return { kind: "attached", run: run ?? raise(notFound("run")) };
}

interface NewIds {
  runId: string;
  newSessionId: string;
}

async function write(
  deps: StartDeps,
  tx: Tx,
  call: Call,
  { resolved, input, notices, suspicions }: PreparedRun,
  { runId, newSessionId }: NewIds,
  permit: RunPermit,
): Promise<StartedRun> {
  const agent = resolved.agent ?? raise(notFound("agent"));
  const session = await openSession(tx, call, input, newSessionId);
  const { session_id: sessionId, end_user_id: endUserId } = session.row;
  const earlier = session.known === undefined ? { messages: [], omitted: 0 } : await earlierMessages(tx, session.known);
  const messagesBefore = session.known?.message_count ?? 0;
  const chosen = chooseModels(deps, resolved, input, messagesBefore);
  const { agentId, version: agentVersion } = agent;
  const added = newMessages(resolved, input, earlier.messages, endUserId);
  const inputMessageId = added.at(-1)?.id ?? "";
  const firstStep = chosen instanceof Error ? undefined : deps.models.firstStep(chosen, resolved);
  const model = chosen instanceof Error ? agent.llmModel : (chosen.rungs[0]?.model ?? "");
  const bodies: EventBody["payload"][] = [{ case: "runStarted", value: { inputMessageId, agentVersion, model } }];
  if (firstStep !== undefined) bodies.push({ case: "stepStarted", value: { step: 1, ...firstStep } });
  const events = bodies.map((payload, i) => {
    const seq = FIRST_SEQ + BigInt(i);
    const event = durableEvent({ runId, sessionId, agentId }, seq, seq - 1n, { payload });
    return { seq, type: event.type, event: toBinary(AgentEventSchema, event) };
  });
  const language = resolved.userProfile?.language || languageOf(input);
  const plan = toStoredPlan({ resolved, chosen, language });
  const leasedAt = performance.now();
  failpoint("run-start.before-begin");
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
    },
    session:
      session.known === undefined ? { created: { sessionId, agentId: input.agentId } } : { continued: session.known },
    messages: added.map(({ id = "", ...message }) => ({ messageId: id, json: JSON.stringify(message) })),
    events,
    openStep: firstStep === undefined ? 0 : 1,
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
    firstStep,
    notices,
    history: [...earlier.messages, ...added],
    historyOmitted: earlier.omitted,
    leasedAt,
    permit,
  };
}

function chooseModels(
  { models }: StartDeps,
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

async function earlierMessages(tx: Tx, session: SessionRow): Promise<History> {
  if (session.active_run_id !== null) throw sessionBusy(session.active_run_id);
  return sessionHistory(tx, session);
}

/** The session to work in: `known` when it exists, and is locked then; else it is yet to be written. */
interface OpenSession {
  row: Pick<SessionRow, "session_id" | "end_user_id">;
  known: SessionRow | undefined;
}

/** The session to work in: an existing one within reach, or a new one. An unknown UUID is the caller's own new session. */
async function openSession(tx: Tx, call: Call, input: RunInput, newSessionId: string): Promise<OpenSession> {
  const endUserId = ownerFor(call.principal, input.endUserId);
  if (input.sessionId === "") return { row: { session_id: newSessionId, end_user_id: endUserId }, known: undefined };
  const known = isExternalId(input.sessionId)
    ? await ownSession(tx, call, input, endUserId)
    : await knownSession(tx, call, input);
  return { row: known, known };
}

async function knownSession(tx: Tx, { principal }: Call, input: RunInput): Promise<SessionRow> {
  const session = await findSession(tx, input.sessionId, writeReach(principal), true);
  // A machine credential that names a user must name the session's.
  const named = principal.userId === undefined && input.endUserId !== "";
  return named && session.end_user_id !== input.endUserId ? raise(notFound("session")) : session;
}

async function ownSession(tx: Tx, call: Call, input: RunInput, endUserId: string): Promise<SessionRow> {
  const reach = writeReach(call.principal);
  const externalId = input.sessionId.toLowerCase();
  const known = await sessionByExternalId(tx, externalId, endUserId);
  if (known !== undefined && reaches(reach, known)) return findSession(tx, known.session_id, reach, true);
  const session = await newSession(tx, call, input, { endUserId, externalId });
  return findSession(tx, session.session_id, reach, true);
}

/** A new session; for a UUID that another call took at this moment, that call's. */
async function newSession(
  tx: Tx,
  call: Call,
  { agentId }: RunInput,
  owner: { endUserId: string; externalId: string },
): Promise<SessionRow> {
  const sessionId = newId("ses");
  const session = await insertSession(tx, { sessionId, ...owner, agentId, title: "", labels: {} });
  if (session.session_id === sessionId) {
    await audit(tx, "agent", call, { type: "session.created", resource: sessionId, sessionId });
  }
  return session;
}
