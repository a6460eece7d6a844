import { type AuditEvent, auditInsert, auditRows } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { removeOldKeys } from "#platform/postgres/idempotency.ts";
import type { Call } from "#platform/rpc/call.ts";

/** Events that one transaction prunes at most. */
export const PRUNED_EVENTS = 5_000;

/** Something whose time is over; `at` is when it was, with microseconds. */
export interface Expired {
  tenantId: string;
  id: string;
  at: string;
}

/** Where a page of what has expired begins, and how long it is. */
export interface ExpiredPage {
  after: Expired | undefined;
  limit: number;
}

/** Sessions whose time is over, the first one first. Worker role. */
export function expiredSessions(database: Database, page: ExpiredPage, signal: AbortSignal): Promise<Expired[]> {
  return expired(database, "sessions", "session_id", "AND deleted_at IS NULL", page, signal);
}

/** Runs that have ended and whose events' time is over, the first one first. Worker role. */
export function expiredRuns(database: Database, page: ExpiredPage, signal: AbortSignal): Promise<Expired[]> {
  return expired(database, "runs", "run_id", "AND state IN (4, 5, 6)", page, signal);
}

function expired(
  database: Database,
  table: string,
  id: string,
  condition: string,
  { after, limit }: ExpiredPage,
  signal: AbortSignal,
): Promise<Expired[]> {
  return database.worker(
    (tx) =>
      tx.query<Expired>(
        `SELECT tenant_id AS "tenantId", ${id} AS id, expire_time::text AS at FROM agent.${table}
         WHERE expire_time < clock_timestamp() ${condition}
           AND ($1::timestamptz IS NULL OR (expire_time, ${id}) > ($1, $2))
         ORDER BY expire_time, ${id} LIMIT $3`,
        [after?.at ?? null, after?.id ?? null, limit],
      ),
    { signal, readOnly: true },
  );
}

/**
 * Deletes those of a tenant's sessions that are still past their time, that nobody holds, and in which nothing is at work or
 * waits; audited. Returns their ids.
 */
export async function expireSessions(tx: Tx, sessionIds: readonly string[], call: Call): Promise<string[]> {
  const deleted = await tx.query<{ session_id: string }>(
    `UPDATE agent.sessions SET deleted_at = clock_timestamp(), version = version + 1, update_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND session_id IN (
       SELECT s.session_id FROM agent.sessions s
       WHERE s.tenant_id = agentmesh.current_tenant() AND s.session_id = ANY ($1) AND s.deleted_at IS NULL
         AND s.expire_time < clock_timestamp() AND s.active_run_id IS NULL
         AND NOT EXISTS (SELECT FROM agent.runs r WHERE r.tenant_id = s.tenant_id AND r.session_id = s.session_id
           AND r.state IN (1, 2, 3))
       FOR UPDATE SKIP LOCKED)
     RETURNING session_id`,
    [sessionIds],
  );
  const ids = deleted.map(({ session_id }) => session_id);
  const events = ids.map((id): AuditEvent => ({ type: "session.expired", resource: id, sessionId: id }));
  if (ids.length > 0) await tx.execute(auditInsert("agent", "$1"), [auditRows(call, events)]);
  return ids;
}

/**
 * Prunes some of the events of a run that has ended, all but the last one. The run says so before the first one is gone, so
 * that no reader takes what is left for the whole. "done": nothing is left to prune; "taken": another process is at it, or
 * was.
 */
export async function pruneSome(tx: Tx, runId: string, atMost = PRUNED_EVENTS): Promise<"done" | "more" | "taken"> {
  const [run] = await tx.query(
    `UPDATE agent.runs r SET pruned_seq = greatest(r.pruned_seq, coalesce(
         (SELECT max(seq) FROM agent.run_events e
          WHERE e.tenant_id = r.tenant_id AND e.run_id = r.run_id AND e.seq < r.last_seq), 0))
     WHERE r.tenant_id = agentmesh.current_tenant() AND r.run_id IN (
       SELECT run_id FROM agent.runs
       WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND state IN (4, 5, 6)
         AND expire_time < clock_timestamp() FOR UPDATE SKIP LOCKED)
     RETURNING r.run_id`,
    [runId],
  );
  if (run === undefined) return "taken";
  const pruned = await tx.execute(
    `DELETE FROM agent.run_events WHERE ctid = ANY (ARRAY(
       SELECT e.ctid FROM agent.run_events e JOIN agent.runs r USING (tenant_id, run_id)
       WHERE r.tenant_id = agentmesh.current_tenant() AND r.run_id = $1 AND e.seq <= r.pruned_seq LIMIT $2))`,
    [runId, atMost],
  );
  if (pruned >= atMost) return "more";
  // Without its events nobody can go on with it, and what it was begun with is of no use.
  await tx.execute(
    `UPDATE agent.runs SET expire_time = NULL, plan_id = NULL, begun_with = NULL
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1`,
    [runId],
  );
  return "done";
}

/** Removes answers to repeated requests that are older; returns how many. Worker role. */
export function removeOldAnswers(
  database: Database,
  ageMs: number,
  limit: number,
  signal: AbortSignal,
): Promise<number> {
  return database.worker((tx) => removeOldKeys(tx, "agent", ageMs, limit), { signal });
}

/**
 * Removes plans that no run refers to and that no process has stored for `ageMs`, which is longer than any takes one for
 * stored; returns how many. One process at a time. Worker role.
 */
export async function removeUnusedPlans(database: Database, ageMs: number, signal: AbortSignal): Promise<number> {
  return database.worker(
    async (tx) => {
      if (!(await tx.tryLockKey("agent", "unused plans"))) return 0;
      return tx.execute(
        `DELETE FROM agent.plans p WHERE p.create_time < clock_timestamp() - $1 * interval '1 ms'
           AND NOT EXISTS (SELECT FROM agent.runs r WHERE r.tenant_id = p.tenant_id AND r.plan_id = p.plan_id)`,
        [ageMs],
      );
    },
    { signal },
  );
}
