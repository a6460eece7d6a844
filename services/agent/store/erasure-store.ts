import type { Database, Tx } from "#platform/postgres/database.ts";

/** Rows that one transaction of an erasure deletes of a table at most, so that none runs into its time limit. */
export const ERASURE_ROWS = 5_000;

/** A deleted session whose time has come. */
export interface DeletedSession {
  tenantId: string;
  sessionId: string;
  /** When it was deleted, with microseconds. */
  deletedAt: string;
}

/** Sessions that were deleted longer than `afterMs` ago, the first deleted first, from behind `after` on. Worker role. */
export async function deletedSessions(
  database: Database,
  { afterMs, limit, after }: { afterMs: number; limit: number; after: DeletedSession | undefined },
  signal: AbortSignal,
): Promise<DeletedSession[]> {
  return database.worker(
    (tx) =>
      tx.query<DeletedSession>(
        `SELECT tenant_id AS "tenantId", session_id AS "sessionId", deleted_at::text AS "deletedAt" FROM agent.sessions
         WHERE deleted_at <= clock_timestamp() - $1 * interval '1 ms'
           AND ($3::timestamptz IS NULL OR (deleted_at, session_id) > ($3, $4))
         ORDER BY deleted_at, session_id LIMIT $2`,
        [afterMs, limit, after?.deletedAt ?? null, after?.sessionId ?? null],
      ),
    { signal, readOnly: true },
  );
}

/** Locks a deleted session until the transaction ends; false when it is gone, or another process is at it. */
export async function claimDeleted(tx: Tx, sessionId: string): Promise<boolean> {
  const row = await tx.one(
    `SELECT session_id FROM agent.sessions
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND deleted_at IS NOT NULL
     FOR UPDATE SKIP LOCKED`,
    [sessionId],
  );
  return row !== undefined;
}

/** Rows of a table that belong to the runs of session $1. */
const ofItsRuns = (table: string) => `SELECT d.ctid FROM agent.runs r JOIN agent.${table} d USING (tenant_id, run_id)
  WHERE r.tenant_id = agentmesh.current_tenant() AND r.session_id = $1`;
const ofSession = (table: string) => `SELECT ctid FROM agent.${table}
  WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1`;

/**
 * What hangs on a session, in the order in which it can be deleted: the rows of each table by their ctid. A test compares
 * it with the catalog, so that no table is forgotten.
 */
export const ERASED: readonly { table: string; rows: string }[] = [
  { table: "run_events", rows: ofItsRuns("run_events") },
  { table: "step_drafts", rows: ofItsRuns("step_drafts") },
  { table: "approvals", rows: ofSession("approvals") },
  { table: "client_calls", rows: ofSession("client_calls") },
  { table: "queued_runs", rows: ofSession("queued_runs") },
  { table: "dead_letters", rows: ofSession("dead_letters") },
  { table: "run_inputs", rows: ofItsRuns("run_inputs") },
  { table: "messages", rows: ofSession("messages") },
  { table: "compactions", rows: ofSession("compactions") },
  {
    // The answers are the ids: of the session that was created, of the runs that were begun; where a message has joined a
    // run, with more behind a space (32). Compared as bytes, since an answer need not be text.
    table: "idempotency_keys",
    rows: `SELECT k.ctid FROM agent.idempotency_keys k
      WHERE k.tenant_id = agentmesh.current_tenant() AND
        CASE position('\\x20'::bytea IN k.response)
          WHEN 0 THEN k.response ELSE substring(k.response FOR position('\\x20'::bytea IN k.response) - 1)
        END IN (
          SELECT convert_to($1, 'UTF8') UNION ALL
          SELECT convert_to(r.run_id, 'UTF8') FROM agent.runs r
          WHERE r.tenant_id = agentmesh.current_tenant() AND r.session_id = $1)`,
  },
];

/** Tables that name the session or its runs and keep what they hold, without the user's name. */
export const ANONYMISED = ["model_calls"] as const;

/**
 * Deletes some of what hangs on a session that the transaction has claimed. True when nothing is left of it but its runs
 * and its own row; false: another transaction has to go on.
 */
export async function eraseSome(tx: Tx, sessionId: string, atMost = ERASURE_ROWS): Promise<boolean> {
  let left = atMost;
  for (const { table, rows } of ERASED) {
    const sql = `DELETE FROM agent.${table} WHERE ctid = ANY (ARRAY(${rows} LIMIT $2))`;
    left -= await tx.execute(sql, [sessionId, left]);
    if (left <= 0) return false;
  }
  return true;
}

/** Erases what {@link eraseSome} has left: the runs and the session itself. What was booked stays, without the user's name. */
export async function eraseRest(tx: Tx, sessionId: string): Promise<void> {
  await tx.execute(
    `UPDATE agent.model_calls c SET end_user_id = '' FROM agent.runs r
     WHERE c.tenant_id = agentmesh.current_tenant() AND r.tenant_id = c.tenant_id AND r.run_id = c.run_id
       AND r.session_id = $1 AND c.end_user_id <> ''`,
    [sessionId],
  );
  for (const table of ["runs", "sessions"]) {
    await tx.execute(`DELETE FROM agent.${table} WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1`, [
      sessionId,
    ]);
  }
}
