import type { Tx } from "#platform/postgres/database.ts";
import { TransactionConflict } from "#platform/postgres/errors.ts";
import { raise } from "#platform/rpc/errors.ts";
import type { Cursor } from "../domain/cursor.ts";

/** That an agent handed the conversation to people. */
export interface Escalation {
  reason: string;
  priority: string;
  run_id: string;
  /** RFC 3339. */
  create_time: string;
}

/** A row of agent.sessions. */
export interface SessionRow {
  session_id: string;
  external_id: string | null;
  end_user_id: string;
  agent_id: string;
  title: string;
  labels: Record<string, string>;
  message_count: number;
  active_run_id: string | null;
  escalation: Escalation | null;
  version: number;
  /** The newest compaction; null for a session that was not compacted. */
  compaction_id: string | null;
  /** The session that this one is a copy of, and the last message that was copied. */
  forked_from_session_id: string | null;
  forked_from_message_id: string | null;
  create_time: Date;
  update_time: Date;
  /** create_time with microseconds, for page cursors. */
  sort_time: string;
}

export interface NewSession {
  sessionId: string;
  externalId: string | null;
  endUserId: string;
  agentId: string;
  title: string;
  labels: Record<string, string>;
}

export interface SessionFilter {
  /** Only this user's; undefined for all of the tenant's. */
  endUserId: string | undefined;
  agentId: string | undefined;
}

/** What a SessionRow is made of. */
export const SESSION_COLUMNS = `session_id, external_id, end_user_id, agent_id, title, labels, message_count, active_run_id, escalation, version, compaction_id,
  forked_from_session_id, forked_from_message_id, create_time, update_time, create_time::text AS sort_time`;

export async function insertSession(tx: Tx, session: NewSession): Promise<SessionRow> {
  const rows = await tx.query<SessionRow>(
    `INSERT INTO agent.sessions (tenant_id, session_id, external_id, end_user_id, agent_id, title, labels)
     VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, $6)
     ON CONFLICT DO NOTHING RETURNING ${SESSION_COLUMNS}`,
    [
      session.sessionId,
      session.externalId,
      session.endUserId,
      session.agentId,
      session.title,
      JSON.stringify(session.labels),
    ],
  );
  // Another call of the same user with the same UUID was first: theirs is the session.
  const known = rows[0] ?? (await sessionByExternalId(tx, session.externalId ?? "", session.endUserId));
  return known ?? raise(new TransactionConflict());
}

/** Finds a session by its own id. `lock` keeps others from starting a run in it until the transaction ends. */
export async function sessionById(tx: Tx, sessionId: string, lock = false): Promise<SessionRow | undefined> {
  return tx.one<SessionRow>(
    `SELECT ${SESSION_COLUMNS} FROM agent.sessions
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND deleted_at IS NULL${lock ? " FOR UPDATE" : ""}`,
    [sessionId],
  );
}

/**
 * Finds a session by the caller's own id: this user's, or with `endUserId` undefined the one that belongs to no user, else
 * that of the only user who has it.
 */
export async function sessionByExternalId(
  tx: Tx,
  externalId: string,
  endUserId: string | undefined,
): Promise<SessionRow | undefined> {
  const rows = await tx.query<SessionRow>(
    `SELECT ${SESSION_COLUMNS} FROM agent.sessions
     WHERE tenant_id = agentmesh.current_tenant() AND external_id = $1 AND ($2::text IS NULL OR end_user_id = $2)
       AND deleted_at IS NULL
     ORDER BY end_user_id LIMIT 2`,
    [externalId, endUserId ?? null],
  );
  return rows.length === 1 || rows[0]?.end_user_id === "" ? rows[0] : undefined;
}

export async function listSessions(
  tx: Tx,
  filter: SessionFilter,
  page: { limit: number; skip: number; after: Cursor | undefined },
): Promise<SessionRow[]> {
  return tx.query<SessionRow>(
    `SELECT ${SESSION_COLUMNS} FROM agent.sessions
     WHERE tenant_id = agentmesh.current_tenant() AND deleted_at IS NULL
       AND ($1::text IS NULL OR end_user_id = $1)
       AND ($2::text IS NULL OR agent_id = $2)
       AND ($3::timestamptz IS NULL OR (create_time, session_id) < ($3, $4))
     ORDER BY create_time DESC, session_id DESC LIMIT $5 OFFSET $6`,
    [
      filter.endUserId ?? null,
      filter.agentId ?? null,
      page.after?.time ?? null,
      page.after?.id ?? null,
      page.limit,
      page.skip,
    ],
  );
}

export async function updateSession(
  tx: Tx,
  sessionId: string,
  values: { title: string; labels: Record<string, string>; agentId: string; escalation: Escalation | null },
): Promise<SessionRow | undefined> {
  return tx.one<SessionRow>(
    `UPDATE agent.sessions SET title = $2, labels = $3, agent_id = $4, escalation = $5, version = version + 1, update_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 RETURNING ${SESSION_COLUMNS}`,
    [
      sessionId,
      values.title,
      JSON.stringify(values.labels),
      values.agentId,
      values.escalation === null ? null : JSON.stringify(values.escalation),
    ],
  );
}

/** Marks a session as one that waits for people. */
export async function markEscalated(tx: Tx, sessionId: string, escalationJson: string): Promise<void> {
  await tx.execute(
    `UPDATE agent.sessions SET escalation = $2, version = version + 1, update_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1`,
    [sessionId, escalationJson],
  );
}

/** Deletes a session that the transaction has locked: from its commit on nobody finds it, or its runs. */
export async function markDeleted(tx: Tx, sessionId: string): Promise<void> {
  await tx.execute(
    `UPDATE agent.sessions SET deleted_at = clock_timestamp(), version = version + 1, update_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1`,
    [sessionId],
  );
}

/** A condition on the row of `runs`, or of another table with a session: its session is not deleted. */
export function inLivingSession(row: string): string {
  return `EXISTS (SELECT FROM agent.sessions living WHERE living.tenant_id = ${row}.tenant_id
    AND living.session_id = ${row}.session_id AND living.deleted_at IS NULL)`;
}
