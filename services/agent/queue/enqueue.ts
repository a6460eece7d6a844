import { create, toBinary } from "@bufbuild/protobuf";
import { RunQueuedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { type AuditEvent, audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { remembered } from "#platform/postgres/idempotency.ts";
import { enqueue } from "#platform/postgres/outbox.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { inject } from "#platform/telemetry/trace-context.ts";
import { canonicalInput, type RunInput } from "../domain/run-input.ts";
import { queueFull, sessionBusy, sessionQueueFull } from "../errors.ts";
import { openSession } from "../runs/open-session.ts";
import { type PrepareDeps, type PreparedRun, prepareRun } from "../runs/prepare-run.ts";
import { workSubject } from "../runs/run-subject.ts";
import { earlierAnswer } from "../store/earlier-answer.ts";
import { countQueued, insertQueued, queuedOf } from "../store/queue-store.ts";
import { type RunRow, runById } from "../store/run-store.ts";
import { insertSession } from "../store/session-store.ts";

/** Turns that may wait for one session. */
export const MAX_QUEUED_PER_SESSION = 16;

export interface EnqueueDeps extends PrepareDeps {
  database: Database;
  maxQueuedPerTenant: number;
  /** How long a queued run is left to whoever the bus told of it. */
  orphanAfterMs: number;
}

/** How a run is queued. */
export interface QueueHow {
  /** In a session whose run is in progress: SESSION_BUSY, or behind it. */
  whenBusy: "refuse" | "wait";
  /** The run whose work it does again. */
  retryOf?: string;
}

/**
 * Stores a run that is begun later, by whoever has room: the request id, the session, the run in state QUEUED with what it
 * shall do, and the event that tells of it are there together or not at all. It is checked as a turn is; it is checked again
 * when it begins. A repeated request answers with the run of the first one.
 */
export async function enqueueRun(deps: EnqueueDeps, call: Call, input: RunInput, how: QueueHow): Promise<RunRow> {
  const { tenantId } = call.principal;
  const options = { signal: call.signal, deadline: call.deadline };
  const inTenant = <T>(fn: (tx: Tx) => Promise<T>) => deps.database.tenant(tenantId, fn, options);
  const key = { schema: "agent", call, method: "StartRun", requestId: input.requestId, request: canonicalInput(input) };
  const ids = { runId: newId("run"), newSessionId: newId("ses") };
  let prepared: PreparedRun;
  try {
    prepared = await prepareRun(deps, call, input, ids);
  } catch (error) {
    const earlier = await earlierAnswer(deps.database, key);
    if (earlier === undefined) throw error;
    return inTenant((tx) => storedRun(tx, earlier));
  }
  return inTenant(async (tx) => {
    const earlier = await remembered(tx, key, Buffer.from(ids.runId));
    if (earlier !== undefined) return storedRun(tx, earlier);
    return storeQueued(deps, tx, call, { input, prepared, how, ...ids });
  });
}

async function storedRun(tx: Tx, response: Uint8Array): Promise<RunRow> {
  return (await runById(tx, Buffer.from(response).toString())) ?? raise(notFound("run"));
}

/** What is to be queued, checked. */
export interface ToStore {
  input: RunInput;
  prepared: PreparedRun;
  how: QueueHow;
  /** Who it works for; default, the caller. */
  principal?: Principal;
  runId: string;
  newSessionId: string;
}

/** Writes a queued run and all that belongs to it. */
export async function storeQueued(
  deps: Pick<EnqueueDeps, "maxQueuedPerTenant" | "orphanAfterMs">,
  tx: Tx,
  call: Call,
  { input, prepared, how, principal = call.principal, runId, newSessionId }: ToStore,
): Promise<RunRow> {
  if ((await countQueued(tx, deps.maxQueuedPerTenant)) >= deps.maxQueuedPerTenant) {
    throw queueFull(deps.maxQueuedPerTenant);
  }
  const { agentId, version: agentVersion } = prepared.resolved.agent ?? raise(notFound("agent"));
  const { row, known } = await openSession(tx, { ...call, principal }, input, newSessionId);
  const { session_id: sessionId, end_user_id: endUserId } = row;
  const waiting = known === undefined ? [] : await queuedOf(tx, sessionId);
  const busyWith = known && (known.active_run_id ?? waiting[0]);
  if (busyWith !== undefined && how.whenBusy === "refuse") throw sessionBusy(busyWith);
  if (waiting.length >= MAX_QUEUED_PER_SESSION) throw sessionQueueFull(MAX_QUEUED_PER_SESSION);
  if (known === undefined) {
    const created = { sessionId, externalId: null, endUserId, agentId: input.agentId, title: "", labels: {} };
    await insertSession(tx, created);
    await audit(tx, "agent", call, { type: "session.created", resource: sessionId, sessionId });
  }
  const background = input.background === true;
  const run = await insertQueued(tx, {
    runId,
    sessionId,
    endUserId,
    agentId,
    agentVersion,
    principal,
    background,
    timeLimitMs: input.timeLimitMs,
    retryOf: how.retryOf,
    input: Buffer.from(canonicalInput(input)).toString(),
    occupies: busyWith === undefined,
    dueInMs: deps.orphanAfterMs,
  });
  const details = { agent_id: agentId, background, message_characters: input.message.length };
  const queued: AuditEvent = { type: "run.queued", resource: runId, sessionId, details };
  await audit(tx, "agent", call, queued);
  await announceWork(tx, call.principal.tenantId, runId);
  return run;
}

/** Writes the event that brings a queued run to whoever has room. */
async function announceWork(tx: Tx, tenantId: string, runId: string): Promise<void> {
  const headers: Record<string, string> = {};
  inject(headers);
  const payload = workMessage(tenantId, runId);
  await enqueue(tx, "agent", {
    subject: workSubject(tenantId, runId),
    eventId: newId("evt"),
    tenantId,
    payload,
    headers,
  });
}

/** What the bus carries of a queued run. */
export function workMessage(tenantId: string, runId: string): Uint8Array {
  return toBinary(RunQueuedSchema, create(RunQueuedSchema, { tenantId, runId }));
}
