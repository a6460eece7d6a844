import { ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Tx } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { adapterOf } from "../adapters/adapters.ts";
import type { EventBody } from "../runs/event-envelope.ts";
import { maskedJson } from "../runs/masked-output.ts";
import { fromStoredPlan } from "../runs/run-plan.ts";
import type { MaskRule } from "../runs/stream-mask.ts";
import { type ApprovalRow, type Resolution, resolveApproval } from "../store/approval-store.ts";
import { planOf } from "../store/resume-store.ts";
import type { RunRow } from "../store/run-store.ts";
import { STATE_NAMES } from "./decisions.ts";
import { digestOf } from "./gates.ts";
import { type Advanced, advance } from "./suspended-run.ts";

/** Decides a pending approval of a suspended run whose row is locked: the row, the events, the audit. */
export async function settle(
  tx: Tx,
  call: Call,
  run: RunRow,
  pending: ApprovalRow,
  resolution: Resolution,
): Promise<Advanced> {
  const approval = await resolveApproval(tx, pending.approval_id, resolution);
  const approved = approvedDigest(approval);
  const { approval_id: resource, session_id: sessionId } = approval;
  const state = STATE_NAMES.get(approval.state) ?? "";
  await audit(tx, "agent", call, {
    type: approval.state === ApprovalState.EXPIRED ? "approval.expired" : "approval.resolved",
    resource,
    sessionId,
    details: {
      run_id: run.run_id,
      call_id: approval.call_id,
      tool: approval.tool,
      state,
      edited: approval.edited_arguments_json !== "",
      approved_arguments_sha256: approved,
    },
  });
  const hides = approval.edited_arguments_json === "" ? undefined : await hiddenBy(tx, run.run_id);
  return advance(tx, run, [resolvedBody(approval, approved, hides)], {
    came: ({ approval_id: id }) => id === approval.approval_id,
    cause: "approval_resolved",
    tenantId: call.principal.tenantId,
  });
}

/** SHA-256 of what was approved; empty for every other end of an approval. */
export function approvedDigest(approval: ApprovalRow): string {
  if (approval.state !== ApprovalState.APPROVED) return "";
  return approval.edited_arguments_json === "" ? approval.arguments_sha256 : digestOf(approval.edited_arguments_json);
}

function resolvedBody(approval: ApprovalRow, approved: string, hides: MaskRule | undefined): EventBody {
  const edited = approval.edited_arguments_json;
  return {
    itemId: approval.call_id,
    payload: {
      case: "approvalResolved",
      value: {
        approvalId: approval.approval_id,
        tool: approval.tool,
        state: approval.state,
        resolvedBy: approval.resolved_by,
        comment: approval.comment,
        editedArgumentsJson: hides === undefined ? edited : maskedJson(hides, edited),
        approvedArgumentsSha256: approved,
      },
    },
  };
}

async function hiddenBy(tx: Tx, runId: string): Promise<MaskRule | undefined> {
  const plan = await planOf(tx, runId);
  return adapterOf((plan && fromStoredPlan(plan)?.resolved.agent?.adapter) ?? "")?.hides;
}
