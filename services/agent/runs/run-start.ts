import { toBinary } from "@bufbuild/protobuf";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { isUniqueViolation } from "#platform/postgres/errors.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";
import { invalidFields, notFound, raise } from "#platform/rpc/errors.ts";
import { ownerFor, reaches, writeReach } from "../domain/ownership.ts";
import { canonicalInput, type RunInput } from "../domain/run-input.ts";
import { sessionBusy } from "../errors.ts";
import type { ModelMessage } from "../llm/chat-model.ts";
import { findSession, isExternalId } from "../sessions/sessions.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import { appendMessages, sessionHistory } from "../store/message-store.ts";
import { appendEvents, insertRun, type RunRow, runById } from "../store/run-store.ts";
import { insertSession, occupySession, type SessionRow, sessionByExternalId } from "../store/session-store.ts";
import { durableEvent } from "./event-envelope.ts";

/** seq of run_started, the first event of every run. */
export const FIRST_SEQ = 1n;

/** Where the tenant has set no limit of its own. */
const MAX_MESSAGE_CHARACTERS = 100_000n;

export interface StartDeps {
  database: Database;
  owner: string;
  ownerAddress: string;
  leaseMs: number;
  resolveAgent(call: Call, agentId: string): Promise<ResolveAgentResponse>;
}

/** A run that this call has begun, with all that its executor needs. */
export interface StartedRun {
  kind: "started";
  run: RunRow;
  session: SessionRow;
  resolved: ResolveAgentResponse;
  /** What the model is shown, with the message that is to be answered at its end. */
  history: ModelMessage[];
  /** Older messages of the session that are left out. */
  historyOmitted: number;
  /** `performance.now()` before the lease was taken. */
  leasedAt: number;
}

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
  let resolved: ResolveAgentResponse;
  try {
    resolved = await prepare(deps, call, input);
  } catch (error) {
    const earlier = await earlierAnswer(deps.database, key);
    if (earlier === undefined) throw error;
    return inTenant((tx) => attach(tx, earlier));
  }
  try {
    return await inTenant(async (tx) => {
      let started: StartedRun | undefined;
      const { response } = await idempotent(tx, key, async () => {
        started = await write(deps, tx, call, input, resolved);
        return new TextEncoder().encode(started.run.run_id);
      });
      return started ?? attach(tx, response);
    });
  } catch (error) {
    // The session's row is locked while a run begins in it; the index stands behind that, should it ever not be.
    if (!isUniqueViolation(error, "runs_active")) throw error;
    const busy = await inTenant((tx) => findSession(tx, input.sessionId, writeReach(call.principal)));
    throw sessionBusy(busy.active_run_id ?? "");
  }
}

/** The agent that is to answer. Nothing is written yet, and no transaction is held while another service is asked. */
async function prepare(deps: StartDeps, call: Call, input: RunInput): Promise<ResolveAgentResponse> {
  const agentId = input.agentId || (await sessionAgent(deps, call, input));
  const resolved = await deps.resolveAgent(call, agentId);
  const limit = Number(resolved.limits?.maxMessageCharacters ?? MAX_MESSAGE_CHARACTERS);
  if (input.message.length > limit && [...input.message].length > limit) {
    throw invalidFields({
      field: "message",
      description: `is longer than the ${limit} characters that your tier allows`,
    });
  }
  return resolved;
}

async function attach(tx: Tx, response: Uint8Array): Promise<AttachedRun> {
  const run = await runById(tx, Buffer.from(response).toString());
  return { kind: "attached", run: run ?? raise(notFound("run")) };
}

async function write(
  deps: StartDeps,
  tx: Tx,
  call: Call,
  input: RunInput,
  resolved: ResolveAgentResponse,
): Promise<StartedRun> {
  const agent = resolved.agent ?? raise(notFound("agent"));
  const session = await openSession(tx, call, input);
  if (session.active_run_id !== null) throw sessionBusy(session.active_run_id);
  const ids = { runId: newId("run"), sessionId: session.session_id, agentId: agent.agentId };
  const { messages, omitted } = await sessionHistory(tx, session);
  const leasedAt = performance.now();
  const run = await insertRun(tx, {
    ...ids,
    endUserId: session.end_user_id,
    agentVersion: agent.version,
    principal: call.principal,
    owner: deps.owner,
    ownerAddress: deps.ownerAddress,
    leaseMs: deps.leaseMs,
  });
  const messageId = newId("msg");
  const message: ModelMessage = {
    role: "user",
    content: [{ type: "text", text: input.message }, ...input.attachments],
  };
  await appendMessages(tx, session.session_id, run.run_id, [{ messageId, json: JSON.stringify(message) }]);
  const { agentId, version: agentVersion, llmModel: model } = agent;
  const event = durableEvent(ids, FIRST_SEQ, 0n, {
    payload: { case: "runStarted", value: { inputMessageId: messageId, agentVersion, model } },
  });
  const fence = { tenantId: call.principal.tenantId, runId: run.run_id, owner: run.owner, epoch: run.epoch };
  const row = { seq: FIRST_SEQ, type: event.type, event: toBinary(AgentEventSchema, event) };
  await appendEvents(tx, fence, [row], undefined);
  await occupySession(tx, session.session_id, run.run_id);
  await audit(tx, "agent", call, {
    type: "run.started",
    resource: run.run_id,
    sessionId: session.session_id,
    details: { agent_id: agentId, agent_version: agentVersion, message_characters: input.message.length },
  });
  const history = [...messages, message];
  const begun = { ...run, last_seq: FIRST_SEQ };
  return { kind: "started", run: begun, session, resolved, history, historyOmitted: omitted, leasedAt };
}

/** The session to work in: an existing one within reach, or a new one. An unknown UUID is the caller's own new session. */
async function openSession(tx: Tx, call: Call, input: RunInput): Promise<SessionRow> {
  const { principal } = call;
  const endUserId = ownerFor(principal, input.endUserId);
  const reach = writeReach(principal);
  if (input.sessionId === "") return newSession(tx, call, input, { endUserId, externalId: null });
  if (!isExternalId(input.sessionId)) {
    const session = await findSession(tx, input.sessionId, reach, true);
    // A machine credential that names a user must name the session's.
    const named = principal.userId === undefined && input.endUserId !== "";
    return named && session.end_user_id !== input.endUserId ? raise(notFound("session")) : session;
  }
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
  owner: { endUserId: string; externalId: string | null },
): Promise<SessionRow> {
  const sessionId = newId("ses");
  const session = await insertSession(tx, { sessionId, ...owner, agentId, title: "", labels: {} });
  if (session.session_id === sessionId) {
    await audit(tx, "agent", call, { type: "session.created", resource: sessionId, sessionId });
  }
  return session;
}

/** The agent of the session that a call continues; empty for a new session or one without an agent. */
async function sessionAgent(deps: StartDeps, call: Call, input: RunInput): Promise<string> {
  if (input.sessionId === "") return "";
  const { tenantId } = call.principal;
  const session = await deps.database.tenant(
    tenantId,
    async (tx) =>
      isExternalId(input.sessionId)
        ? sessionByExternalId(tx, input.sessionId.toLowerCase(), ownerFor(call.principal, input.endUserId))
        : findSession(tx, input.sessionId, writeReach(call.principal)),
    { signal: call.signal, readOnly: true },
  );
  return session?.agent_id ?? "";
}
