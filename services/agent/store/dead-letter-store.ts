import type { Tx } from "#platform/postgres/database.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import type { Cursor } from "../domain/cursor.ts";
import { inLivingSession } from "./session-store.ts";

/** A row of agent.dead_letters, and who its run was for. */
export interface DeadLetterRow {
  run_id: string;
  session_id: string;
  end_user_id: string;
  agent_id: string;
  subject: string;
  input: unknown;
  principal: Principal;
  reason: string;
  message: string;
  attempts: number;
  queue_time: Date;
  dead_time: Date;
  redriven_by: string | null;
  redrive_time: Date | null;
  /** dead_time with microseconds, for page cursors. */
  sort_time: string;
}

const SELECT = `SELECT d.run_id, d.session_id, d.end_user_id, d.agent_id, d.subject, d.input, r.principal, d.reason, d.message,
    d.attempts, d.queue_time, d.dead_time, d.redriven_by, d.redrive_time, d.dead_time::text AS sort_time
  FROM agent.dead_letters d JOIN agent.runs r ON r.tenant_id = d.tenant_id AND r.run_id = d.run_id
  WHERE d.tenant_id = agentmesh.current_tenant() AND ${inLivingSession("d")}`;

/** The dead letter of a run; `lock` keeps others from putting it back until the transaction ends. */
export async function deadLetter(tx: Tx, runId: string, lock = false): Promise<DeadLetterRow | undefined> {
  return tx.one<DeadLetterRow>(`${SELECT} AND d.run_id = $1${lock ? " FOR UPDATE OF d" : ""}`, [runId]);
}

/** Newest first. */
export async function listDeadLetters(
  tx: Tx,
  filter: { endUserId: string | undefined; openOnly: boolean },
  page: { limit: number; after: Cursor | undefined },
): Promise<DeadLetterRow[]> {
  return tx.query<DeadLetterRow>(
    `${SELECT} AND ($1::text IS NULL OR d.end_user_id = $1) AND NOT ($2::boolean AND d.redriven_by IS NOT NULL)
       AND ($3::timestamptz IS NULL OR (d.dead_time, d.run_id) < ($3, $4))
     ORDER BY d.dead_time DESC, d.run_id DESC LIMIT $5`,
    [filter.endUserId ?? null, filter.openOnly, page.after?.time ?? null, page.after?.id ?? null, page.limit],
  );
}

/** Notes which run does the work again. */
export async function markRedriven(tx: Tx, runId: string, byRunId: string): Promise<void> {
  await tx.execute(
    `UPDATE agent.dead_letters SET redriven_by = $2, redrive_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1`,
    [runId, byRunId],
  );
}
