import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Tx } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { ownerFor, reaches, writeReach } from "../domain/ownership.ts";
import type { RunInput } from "../domain/run-input.ts";
import { findSession, isExternalId } from "../sessions/find-session.ts";
import { insertSession, type SessionRow, sessionByExternalId } from "../store/session-store.ts";

/** The session to work in: `known` when it exists, and is locked then; else it is yet to be written. */
export interface OpenSession {
  row: Pick<SessionRow, "session_id" | "end_user_id">;
  known: SessionRow | undefined;
}

/** The session to work in: an existing one within reach, or a new one. An unknown UUID is the caller's own new session. */
export async function openSession(tx: Tx, call: Call, input: RunInput, newSessionId: string): Promise<OpenSession> {
  const endUserId = ownerFor(call.principal, input.endUserId);
  if (input.sessionId === "") return { row: { session_id: newSessionId, end_user_id: endUserId }, known: undefined };
  const known = isExternalId(input.sessionId)
    ? await ownSession(tx, call, input, endUserId)
    : await knownSession(tx, call, input);
  return { row: known, known };
}

/** The session that a turn would continue, without its lock; undefined for one that is yet to be made. */
export async function readSession(tx: Tx, call: Call, input: RunInput): Promise<SessionRow | undefined> {
  if (input.sessionId === "") return undefined;
  if (!isExternalId(input.sessionId)) return knownSession(tx, call, input, false);
  const own = await sessionByExternalId(tx, input.sessionId.toLowerCase(), ownerFor(call.principal, input.endUserId));
  return own !== undefined && reaches(writeReach(call.principal), own) ? own : undefined;
}

async function knownSession(tx: Tx, { principal }: Call, input: RunInput, lock = true): Promise<SessionRow> {
  const session = await findSession(tx, input.sessionId, writeReach(principal), lock);
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
