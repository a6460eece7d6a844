import type { Tx } from "#platform/postgres/database.ts";

/** A row of agent.client_calls. */
export interface ClientCallRow {
  call_id: string;
  tool: string;
  state: "WAITING" | "ANSWERED" | "EXPIRED" | "CANCELLED";
  answer_sha256: Buffer | null;
}

/** A call that the caller is to execute. */
export interface NewClientCall {
  callId: string;
  tool: string;
  expireTime: Date;
}

/** Inserts a call that a run waits for; one that it waits for already stays as it is. */
export async function insertClientCall(tx: Tx, runId: string, call: NewClientCall): Promise<void> {
  await tx.execute(
    `INSERT INTO agent.client_calls (tenant_id, run_id, call_id, session_id, tool, expire_time)
     SELECT tenant_id, run_id, $2, session_id, $3, $4 FROM agent.runs
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1
     ON CONFLICT DO NOTHING`,
    [runId, call.callId, call.tool, call.expireTime],
  );
}

/** Those of these calls of a run that were ever waited for. */
export async function clientCallsOf(tx: Tx, runId: string, callIds: readonly string[]): Promise<ClientCallRow[]> {
  return tx.query<ClientCallRow>(
    `SELECT call_id, tool, state, answer_sha256 FROM agent.client_calls
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND call_id = ANY ($2)`,
    [runId, callIds],
  );
}

/** Ends the wait for a call; its run's row is locked. */
export async function settleClientCall(
  tx: Tx,
  runId: string,
  callId: string,
  how: { state: "ANSWERED"; answerSha256: Buffer } | { state: "EXPIRED" },
): Promise<void> {
  const changed = await tx.execute(
    `UPDATE agent.client_calls SET state = $3, answer_sha256 = $4, resolve_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND call_id = $2 AND state = 'WAITING'`,
    [runId, callId, how.state, how.state === "ANSWERED" ? how.answerSha256 : null],
  );
  if (changed !== 1) throw new Error("a call was answered beside its run's lock");
}

/** Ends what is still waited for of a run that has ended. */
export async function cancelClientCalls(tx: Tx, runId: string): Promise<void> {
  await tx.execute(
    `UPDATE agent.client_calls SET state = 'CANCELLED', resolve_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND state = 'WAITING'`,
    [runId],
  );
}

/** Calls whose time is over. Worker role. */
export async function dueClientCalls(
  tx: Tx,
  limit: number,
): Promise<{ tenantId: string; runId: string; callId: string }[]> {
  return tx.query(
    `SELECT tenant_id AS "tenantId", run_id AS "runId", call_id AS "callId" FROM agent.client_calls
     WHERE state = 'WAITING' AND expire_time <= clock_timestamp() ORDER BY expire_time LIMIT $1`,
    [limit],
  );
}
