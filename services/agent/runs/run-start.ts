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
import { appendMessages, sessionHistory } from "../store/message-store.ts";
import { appendEvents, insertRun, type RunRow, runById } from "../store/run-store.ts";
import { insertSession, occupySession, type SessionRow, sessionByExternalId } from "../store/session-store.ts";
import { durableEvent } from "./event-envelope.ts";

/** seq of run_started, the first event of every run. */
export const FIRST_SEQ = 1n;

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
  history: ModelMessage[];
  /** The run_started event, as it was committed. */
  firstEvent: Uint8Array;
}

/** A run that an earlier call with the same request id has begun. */
export interface AttachedRun {
  kind: "attached";
  run: RunRow;
}

/**
 * Begins a run in one transaction: the request id, the session, the run (leased to this process), the user's message
 * and run_started are there together or not at all. A repeated request attaches to the run of the first one.
 */
export async function startRun(deps: StartDeps, call: Call, input: RunInput): Promise<StartedRun | AttachedRun> {
  const agentId = input.agentId || (await sessionAgent(deps, call, input));
  const resolved = await deps.resolveAgent(call, agentId);
  const limit = Number(resolved.limits?.maxMessageCharacters ?? 100_000n);
  if ([...input.message].length > limit) {
    throw invalidFields({
      field: "message",
      description: `is longer than the ${limit} characters that your tier allows`,
    });
  }
  try {
    return await deps.database.tenant(call.principal.tenantId, (tx) => begin(deps, tx, call, input, resolved), {
      signal: call.signal,
      deadline: call.deadline,
    });
  } catch (error) {
    // Two calls may take a free session at once; the unique index lets one of them in.
    if (isUniqueViolation(error, "runs_active")) throw sessionBusy("");
    throw error;
  }
}

async function begin(
  deps: StartDeps,
  tx: Tx,
  call: Call,
  input: RunInput,
  resolved: ResolveAgentResponse,
): Promise<StartedRun | AttachedRun> {
  let started: Omit<StartedRun, "kind"> | undefined;
  const key = { schema: "agent", call, method: "StartRun", requestId: input.requestId, request: canonicalInput(input) };
  const { response } = await idempotent(tx, key, async () => {
    started = await write(deps, tx, call, input, resolved);
    return new TextEncoder().encode(started.run.run_id);
  });
  if (started !== undefined) return { kind: "started", ...started };
  const run = await runById(tx, Buffer.from(response).toString());
  return { kind: "attached", run: run ?? raise(notFound("run")) };
}

async function write(
  deps: StartDeps,
  tx: Tx,
  call: Call,
  input: RunInput,
  resolved: ResolveAgentResponse,
): Promise<Omit<StartedRun, "kind">> {
  const agent = resolved.agent ?? raise(notFound("agent"));
  const session = await openSession(tx, call, input);
  if (session.active_run_id !== null) throw sessionBusy(session.active_run_id);
  const ids = { runId: newId("run"), sessionId: session.session_id, agentId: agent.agentId };
  const messageId = newId("msg");
  const run = await insertRun(tx, {
    ...ids,
    endUserId: session.end_user_id,
    agentVersion: agent.version,
    principal: call.principal,
    owner: deps.owner,
    ownerAddress: deps.ownerAddress,
    leaseMs: deps.leaseMs,
  });
  const message: ModelMessage = {
    role: "user",
    content: [{ type: "text", text: input.message }, ...input.attachments],
  };
  const history = await sessionHistory(tx, session.session_id);
  await appendMessages(tx, session.session_id, run.run_id, [{ messageId, message }]);
  const event = durableEvent(ids, FIRST_SEQ, 0n, {
    payload: {
      case: "runStarted",
      value: { inputMessageId: messageId, agentVersion: agent.version, model: agent.llmModel },
    },
  });
  const firstEvent = toBinary(AgentEventSchema, event);
  const fence = { tenantId: call.principal.tenantId, runId: run.run_id, owner: run.owner, epoch: run.epoch };
  await appendEvents(tx, fence, [{ seq: FIRST_SEQ, type: event.type, event: firstEvent }], undefined);
  await occupySession(tx, session.session_id, run.run_id);
  await audit(tx, "agent", call, { type: "run.started", resource: run.run_id, sessionId: session.session_id });
  return { run, session, resolved, history: [...history, message], firstEvent };
}

/** The session to work in: an existing one within reach, or a new one. An unknown UUID is the caller's own new session. */
async function openSession(tx: Tx, call: Call, input: RunInput): Promise<SessionRow> {
  const endUserId = ownerFor(call.principal, input.endUserId);
  const reach = writeReach(call.principal);
  if (input.sessionId === "") return insertSession(tx, newSession(input, endUserId, null));
  if (!isExternalId(input.sessionId)) return sameUser(await findSession(tx, input.sessionId, reach, true), input);
  const externalId = input.sessionId.toLowerCase();
  const known = await sessionByExternalId(tx, externalId, endUserId);
  if (known !== undefined && reaches(reach, known)) return findSession(tx, known.session_id, reach, true);
  const session = await insertSession(tx, newSession(input, endUserId, externalId));
  return findSession(tx, session.session_id, reach, true);
}

/** A machine credential that names a user must name the session's. */
function sameUser(session: SessionRow, input: RunInput): SessionRow {
  if (input.endUserId !== "" && session.end_user_id !== input.endUserId) throw notFound("session");
  return session;
}

function newSession(input: RunInput, endUserId: string, externalId: string | null) {
  const sessionId = newId("ses");
  return { sessionId, externalId, endUserId, agentId: input.agentId, title: "", labels: {} };
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
