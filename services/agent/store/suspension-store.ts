import type { Tx } from "#platform/postgres/database.ts";
import { jsonText } from "#platform/postgres/json-text.ts";
import { type Awaited, RUN_COLUMNS, type RunRow, type RunRowAsText, runRow } from "./run-store.ts";
import type { NewEvent } from "./run-writes.ts";

/** What happens to a suspended run, whose row is locked. */
export interface SuspendedChange {
  events: readonly NewEvent[];
  /** seq of the newest of them. */
  lastSeq: bigint;
  /** What is still awaited; empty: the run goes on, for this cause. */
  awaiting: readonly Awaited[];
  cause: string;
}

/**
 * Appends events to a suspended run. When nothing is awaited any more it is RUNNING again with a lease that is over, so
 * that any replica takes it up.
 */
export async function changeSuspended(tx: Tx, runId: string, change: SuspendedChange): Promise<void> {
  const { events, lastSeq, awaiting, cause } = change;
  const goesOn = awaiting.length === 0;
  const changed = await tx.execute(
    `WITH run AS (
       UPDATE agent.runs SET last_seq = $2, seq_reserved = greatest(seq_reserved, $2), update_time = clock_timestamp(),
         awaiting = $6::jsonb, state = CASE WHEN $7 THEN 2 ELSE 3 END,
         resume_cause = CASE WHEN $7 THEN $8 ELSE NULL END,
         lease_expires = CASE WHEN $7 THEN clock_timestamp() ELSE lease_expires END
       WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND state + 0 = 3
       RETURNING run_id
     ), events AS (
       INSERT INTO agent.run_events (tenant_id, run_id, seq, type, event)
       SELECT agentmesh.current_tenant(), run_id, e.* FROM run, unnest($3::bigint[], $4::text[], $5::bytea[]) AS e
     )
     UPDATE agent.sessions s SET update_time = clock_timestamp() FROM agent.runs r
     WHERE s.tenant_id = agentmesh.current_tenant() AND r.tenant_id = s.tenant_id AND r.session_id = s.session_id
       AND r.run_id = $1`,
    [
      runId,
      lastSeq.toString(),
      events.map(({ seq }) => seq.toString()),
      events.map(({ type }) => type),
      events.map(({ event }) => event),
      goesOn ? null : jsonText(awaiting),
      goesOn,
      cause,
    ],
  );
  if (changed !== 1) throw new Error("a suspended run was changed beside its lock");
}

/** Numbers that somebody gets who takes a run to end it. */
const LAST_WORDS = 10_000n;

/**
 * Takes a run that nobody owns in order to end it in this transaction: the row is as a RUNNING one of `owner`'s, in the
 * next epoch. Undefined when it is not suspended any more.
 */
export async function takeSuspended(tx: Tx, runId: string, owner: string): Promise<RunRow | undefined> {
  const raw = await tx.one<RunRowAsText>(
    `UPDATE agent.runs SET state = 2, owner = $2, epoch = epoch + 1, awaiting = NULL,
       seq_reserved = greatest(seq_reserved, last_seq + $3)
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND state + 0 = 3 RETURNING ${RUN_COLUMNS}`,
    [runId, owner, LAST_WORDS.toString()],
  );
  return raw === undefined ? undefined : runRow(raw);
}
