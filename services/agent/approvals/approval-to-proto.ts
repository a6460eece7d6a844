import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ApprovalSchema } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { ApprovalRow } from "../store/approval-store.ts";
import { ALLOWED_DECISIONS } from "./decisions.ts";
import { approvedDigest } from "./settle-approval.ts";

/** The wire form of an approval. */
export function approvalToProto(approval: ApprovalRow): MessageInitShape<typeof ApprovalSchema> {
  const { resolve_time: resolveTime } = approval;
  return {
    approvalId: approval.approval_id,
    runId: approval.run_id,
    sessionId: approval.session_id,
    agentId: approval.agent_id,
    endUserId: approval.end_user_id,
    callId: approval.call_id,
    tool: approval.tool,
    kind: approval.kind,
    argumentsJson: approval.arguments_json,
    argumentsSha256: approval.arguments_sha256,
    risk: approval.risk,
    reason: approval.reason,
    allowedDecisions: [...ALLOWED_DECISIONS],
    argumentsSchemaJson: approval.schema_json,
    requiresOtherPrincipal: approval.requires_other_principal,
    state: approval.state,
    createTime: timestampFromDate(approval.create_time),
    expireTime: timestampFromDate(approval.expire_time),
    ...(resolveTime === null ? {} : { resolveTime: timestampFromDate(resolveTime) }),
    resolvedBy: approval.resolved_by,
    comment: approval.comment,
    editedArgumentsJson: approval.edited_arguments_json,
    approvedArgumentsSha256: approvedDigest(approval),
    answerJson: approval.answer_json,
  };
}
