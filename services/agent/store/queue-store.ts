import type { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { RUN_COLUMNS, type RunRow, type RunRowAsText, runRow, SEQ_BLOCK } from "./run-store.ts";

/** A run that is to wait in the queue. */
export interface NewQueuedRun {
  runId: string;
  sessionId: string;
  endUserId: string;
  agentId: string;
  agentVersion: number;
  principal: Principal;
  background: boolean;
  timeLimitMs: number | undefined;
  retryOf: string | undefined;
  /** JSON text. */
  input: string;
  /** True: the session is free, and belongs to it from now on. */
  occupies: boolean;
  /** When it is dispatched again, should it not have begun by then. */
  dueInMs: number;
}

/** A place in the queue, for whoever tries to begin its run. */
export interface QueuedRun {
  run_id: string;
  session_id: string;
  end_user_id: string;
  agent_id: string;
  principal: Principal;
  background: boolean;
  deadline: Date | null;
  input: unknown;
  queued_at: Date;
  /** This one included. */
  attempts: number;
}

const OWN = "tenant_id = agentmesh.current_tenant()";

/** Inserts a run in state QUEUED, in a session that the transaction has locked or written. */
export async function insertQueued(tx: Tx, run: NewQueuedRun): Promise<RunRow> {
  const [row] = await tx.query<RunRowAsText>(
    `WITH run AS (
       INSERT INTO agent.runs (tenant_id, session_id, run_id, end_user_id, agent_id, agent_version, state, principal, owner,
         owner_address, lease_expires, seq_reserved, background, deadline, retry_of)
       VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, 1, $6, '', '', 'infinity', $7, $8,
         clock_timestamp() + $9::float8 * interval '1 ms', $10)
       RETURNING ${RUN_COLUMNS}
     ), queue AS (
       INSERT INTO agent.queued_runs (tenant_id, run_id, session_id, input, due_at)
       VALUES (agentmesh.current_tenant(), $2, $1, $11, clock_timestamp() + $12 * interval '1 ms')
     ), session AS (
       UPDATE agent.sessions SET active_run_id = $2, version = version + 1, update_time = clock_timestamp()
       WHERE ${OWN} AND session_id = $1 AND $13::boolean
     )
     SELECT * FROM run`,
    [
      run.sessionId,
      run.runId,
      run.endUserId,
      run.agentId,
      run.agentVersion,
      JSON.stringify(run.principal),
      SEQ_BLOCK.toString(),
      run.background,
      run.timeLimitMs ?? null,
      run.retryOf ?? null,
      run.input,
      run.dueInMs,
      run.occupies,
    ],
  );
  return runRow(row as RunRowAsText);
}

/** How many runs of the tenant wait, counted up to `limit`. */
export async function countQueued(tx: Tx, limit: number): Promise<number> {
  const row = await tx.one<{ n: number }>(
    `SELECT count(*)::int AS n FROM (
       SELECT FROM agent.queued_runs WHERE ${OWN} AND due_at IS NOT NULL LIMIT $1) waiting`,
    [limit],
  );
  return row?.n ?? 0;
}

/**
 * Counts an attempt to begin a run and returns what that takes; undefined when it does not wait any more. It is dispatched
 * again after `dueInMs`, should whoever tries be lost.
 */
export async function claimQueued(tx: Tx, runId: string, dueInMs: number): Promise<QueuedRun | undefined> {
  return tx.one<QueuedRun>(
    `UPDATE agent.queued_runs q SET attempts = q.attempts + 1, due_at = clock_timestamp() + $2 * interval '1 ms'
     FROM agent.runs r
     WHERE q.tenant_id = agentmesh.current_tenant() AND q.run_id = $1 AND q.due_at IS NOT NULL
       AND r.tenant_id = q.tenant_id AND r.run_id = q.run_id AND r.state = 1
     RETURNING r.run_id, r.session_id, r.end_user_id, r.agent_id, r.principal, r.background, r.deadline, q.input, q.attempts,
       q.create_time AS queued_at`,
    [runId, dueInMs],
  );
}

/** Puts a run off. `attempt` says whether the try counts. */
export async function putOff(
  tx: Tx,
  runId: string,
  dueInMs: number,
  attempt: "counts" | "does not count",
): Promise<void> {
  await tx.execute(
    `UPDATE agent.queued_runs SET due_at = clock_timestamp() + $2 * interval '1 ms',
       attempts = attempts - CASE WHEN $3 THEN 0 ELSE 1 END
     WHERE ${OWN} AND run_id = $1 AND due_at IS NOT NULL`,
    [runId, dueInMs, attempt === "counts"],
  );
}

/**
 * Locks a run's place in the queue; to be done before its session and its own row are locked. False when it does not wait
 * any more.
 */
export async function lockQueued(tx: Tx, runId: string): Promise<boolean> {
  const sql = `SELECT run_id FROM agent.queued_runs WHERE ${OWN} AND run_id = $1 AND due_at IS NOT NULL FOR UPDATE`;
  return (await tx.one(sql, [runId])) !== undefined;
}

/** Whether an older run of the session waits. The session must be locked. */
export async function hasOlderQueued(tx: Tx, sessionId: string, runId: string): Promise<boolean> {
  const row = await tx.one(
    `SELECT FROM agent.queued_runs q WHERE ${OWN} AND session_id = $1 AND due_at IS NOT NULL
       AND position < (SELECT position FROM agent.queued_runs WHERE ${OWN} AND run_id = $2) LIMIT 1`,
    [sessionId, runId],
  );
  return row !== undefined;
}

/** Runs of a session that wait, oldest first; locked for the transaction when `lock` is set. */
export async function queuedOf(tx: Tx, sessionId: string): Promise<string[]> {
  const rows = await tx.query<{ run_id: string }>(
    `SELECT run_id FROM agent.queued_runs WHERE ${OWN} AND session_id = $1 AND due_at IS NOT NULL ORDER BY position`,
    [sessionId],
  );
  return rows.map(({ run_id }) => run_id);
}

/** A run of any tenant. */
export interface RunOfTenant {
  tenantId: string;
  runId: string;
}

/**
 * Takes queued runs that are due: of each tenant at most `perTenant`, oldest first, so that one's thousand runs do not stand
 * before another's single one; of the tenants `except` none. They are due again after `dueInMs`. Worker role.
 */
export async function takeDue(
  tx: Tx,
  {
    perTenant,
    limit,
    dueInMs,
    except,
  }: { perTenant: number; limit: number; dueInMs: number; except: readonly string[] },
): Promise<RunOfTenant[]> {
  // now() and not clock_timestamp(): the index can serve it. Tenants are found by hops over the index.
  const rows = await tx.query<{ tenant_id: string; run_id: string }>(
    `WITH RECURSIVE tenants AS (
       (SELECT tenant_id FROM agent.queued_runs WHERE due_at IS NOT NULL ORDER BY tenant_id LIMIT 1)
       UNION ALL
       SELECT (SELECT q.tenant_id FROM agent.queued_runs q WHERE q.due_at IS NOT NULL AND q.tenant_id > t.tenant_id
         ORDER BY q.tenant_id LIMIT 1)
       FROM tenants t WHERE t.tenant_id IS NOT NULL
     ), due AS (
       SELECT q.tenant_id, q.run_id FROM tenants t CROSS JOIN LATERAL (
         SELECT w.tenant_id, w.run_id, w.position FROM agent.queued_runs w
         WHERE w.tenant_id = t.tenant_id AND w.due_at <= now() ORDER BY w.position LIMIT $1 FOR UPDATE SKIP LOCKED) q
       WHERE t.tenant_id <> ALL ($4::text[]) LIMIT $2
     ), taken AS (
       UPDATE agent.queued_runs q SET due_at = clock_timestamp() + $3 * interval '1 ms'
       FROM due WHERE q.tenant_id = due.tenant_id AND q.run_id = due.run_id
       RETURNING q.tenant_id, q.run_id, q.position
     )
     SELECT tenant_id, run_id FROM taken ORDER BY row_number() OVER (PARTITION BY tenant_id ORDER BY position), position`,
    [perTenant, limit, dueInMs, except],
  );
  return rows.map(({ tenant_id, run_id }) => ({ tenantId: tenant_id, runId: run_id }));
}

/** How many runs of all tenants wait. Worker role. */
export async function countWaiting(tx: Tx): Promise<number> {
  const row = await tx.one<{ n: number }>("SELECT count(*)::int AS n FROM agent.queued_runs WHERE due_at IS NOT NULL");
  return row?.n ?? 0;
}

/** Makes runs due that could not be dispatched. Worker role. */
export async function giveBack(tx: Tx, runs: readonly RunOfTenant[], dueInMs: number): Promise<void> {
  await tx.execute(
    `UPDATE agent.queued_runs q SET due_at = clock_timestamp() + $3 * interval '1 ms'
     FROM unnest($1::text[], $2::text[]) AS r (tenant_id, run_id)
     WHERE q.tenant_id = r.tenant_id AND q.run_id = r.run_id AND q.due_at IS NOT NULL`,
    [runs.map(({ tenantId }) => tenantId), runs.map(({ runId }) => runId), dueInMs],
  );
}

/** A run that nobody works on. */
export interface ExpiredRun extends RunOfTenant {
  state: RunState;
}

/** Runs that nobody works on, because they wait for room or for people, and whose time is over. Worker role. */
export async function takeExpired(tx: Tx, limit: number): Promise<ExpiredRun[]> {
  return tx.query<ExpiredRun>(
    `SELECT tenant_id AS "tenantId", run_id AS "runId", state FROM agent.runs
     WHERE state IN (1, 3) AND deadline < now() ORDER BY deadline LIMIT $1`,
    [limit],
  );
}
