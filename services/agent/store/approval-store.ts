import type { ApprovalKind, ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";
import type { Cursor } from "../domain/cursor.ts";
import { inLivingSession } from "./session-store.ts";

const PENDING: typeof ApprovalState.PENDING = 1;
const CANCELLED: typeof ApprovalState.CANCELLED = 6;

/** A row of agent.approvals. */
export interface ApprovalRow {
  approval_id: string;
  run_id: string;
  session_id: string;
  agent_id: string;
  end_user_id: string;
  call_id: string;
  tool: string;
  kind: ApprovalKind;
  state: ApprovalState;
  risk: RiskClass;
  arguments_json: string;
  arguments_sha256: string;
  schema_json: string;
  reason: string;
  requires_other_principal: boolean;
  create_time: Date;
  expire_time: Date;
  resolve_time: Date | null;
  resolved_by: string;
  comment: string;
  edited_arguments_json: string;
  answer_json: string;
  /** create_time with microseconds, for page cursors. */
  sort_time: string;
}

/** A question that is about to be asked. */
export interface NewApproval {
  approvalId: string;
  callId: string;
  tool: string;
  kind: ApprovalKind;
  risk: RiskClass;
  argumentsJson: string;
  argumentsSha256: string;
  schemaJson: string;
  reason: string;
  requiresOtherPrincipal: boolean;
  expireTime: Date;
}

export interface ApprovalFilter {
  endUserId: string | undefined;
  runId: string | undefined;
  sessionId: string | undefined;
  state: number | undefined;
}

const COLUMNS = `approval_id, run_id, session_id, agent_id, end_user_id, call_id, tool, kind, state, risk, arguments_json,
  arguments_sha256, schema_json, reason, requires_other_principal, create_time, expire_time, resolve_time, resolved_by,
  comment, edited_arguments_json, answer_json, create_time::text AS sort_time`;

/** Inserts a question about a call of a run; session, agent and user are the run's. */
export async function insertApproval(tx: Tx, runId: string, approval: NewApproval): Promise<void> {
  await tx.execute(
    `INSERT INTO agent.approvals (tenant_id, run_id, session_id, agent_id, end_user_id, approval_id, call_id, tool, kind,
       state, risk, arguments_json, arguments_sha256, schema_json, reason, requires_other_principal, expire_time)
     SELECT tenant_id, run_id, session_id, agent_id, end_user_id, $2, $3, $4, $5, ${PENDING}, $6, $7, $8, $9, $10, $11, $12
     FROM agent.runs WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1`,
    [
      runId,
      approval.approvalId,
      approval.callId,
      approval.tool,
      approval.kind,
      approval.risk,
      approval.argumentsJson,
      approval.argumentsSha256,
      approval.schemaJson,
      approval.reason,
      approval.requiresOtherPrincipal,
      approval.expireTime,
    ],
  );
}

/** An approval of a session that is not deleted. */
export async function approvalById(tx: Tx, approvalId: string): Promise<ApprovalRow | undefined> {
  return tx.one<ApprovalRow>(
    `SELECT ${COLUMNS} FROM agent.approvals
     WHERE tenant_id = agentmesh.current_tenant() AND approval_id = $1 AND ${inLivingSession("approvals")}`,
    [approvalId],
  );
}

/** All approvals of a run, in the order in which they were asked. */
export async function approvalsOf(tx: Tx, runId: string): Promise<ApprovalRow[]> {
  return tx.query<ApprovalRow>(
    `SELECT ${COLUMNS} FROM agent.approvals WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1
     ORDER BY approval_id`,
    [runId],
  );
}

export async function listApprovals(
  tx: Tx,
  filter: ApprovalFilter,
  page: { limit: number; after: Cursor | undefined },
): Promise<ApprovalRow[]> {
  return tx.query<ApprovalRow>(
    `SELECT ${COLUMNS} FROM agent.approvals
     WHERE tenant_id = agentmesh.current_tenant()
       AND ($1::text IS NULL OR end_user_id = $1) AND ($2::text IS NULL OR run_id = $2)
       AND ($3::text IS NULL OR session_id = $3) AND ($4::smallint IS NULL OR state = $4)
       AND ($5::timestamptz IS NULL OR (create_time, approval_id) < ($5, $6)) AND ${inLivingSession("approvals")}
     ORDER BY create_time DESC, approval_id DESC LIMIT $7`,
    [
      filter.endUserId ?? null,
      filter.runId ?? null,
      filter.sessionId ?? null,
      filter.state ?? null,
      page.after?.time ?? null,
      page.after?.id ?? null,
      page.limit,
    ],
  );
}

/** How an approval was decided. */
export interface Resolution {
  state: ApprovalState;
  resolvedBy: string;
  comment: string;
  editedArgumentsJson: string;
  answerJson: string;
}

/** Decides an approval that is pending; its run's row is locked. */
export async function resolveApproval(tx: Tx, approvalId: string, resolution: Resolution): Promise<ApprovalRow> {
  const row = await tx.one<ApprovalRow>(
    `UPDATE agent.approvals SET state = $2, resolved_by = $3, comment = $4, edited_arguments_json = $5, answer_json = $6,
       resolve_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND approval_id = $1 AND state = ${PENDING} RETURNING ${COLUMNS}`,
    [
      approvalId,
      resolution.state,
      resolution.resolvedBy,
      resolution.comment,
      resolution.editedArgumentsJson,
      resolution.answerJson,
    ],
  );
  if (row === undefined) throw new Error("an approval was decided beside its run's lock");
  return row;
}

/** Ends what is still asked about a run that is cancelled. */
export async function cancelApprovals(tx: Tx, runId: string): Promise<void> {
  await tx.execute(
    `UPDATE agent.approvals SET state = ${CANCELLED}, resolve_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND state = ${PENDING}`,
    [runId],
  );
}

/** Approvals whose time is over. Worker role. */
export async function dueApprovals(tx: Tx, limit: number): Promise<{ tenantId: string; approvalId: string }[]> {
  return tx.query(
    `SELECT tenant_id AS "tenantId", approval_id AS "approvalId" FROM agent.approvals
     WHERE state = ${PENDING} AND expire_time <= clock_timestamp() ORDER BY expire_time LIMIT $1`,
    [limit],
  );
}
