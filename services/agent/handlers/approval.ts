import type { ServiceImpl } from "@connectrpc/connect";
import type { ApprovalService } from "#gen/agentmesh/agent/v1/approval_service_pb.ts";
import { callOf } from "#platform/rpc/call.ts";
import { openPage, pageSize, sealPage } from "#platform/rpc/paging.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import { approvalToProto } from "../approvals/approval-to-proto.ts";
import type { Approvals } from "../approvals/approvals.ts";
import type { Cursor } from "../domain/cursor.ts";

export function approvalHandler(approvals: Approvals, tokens: PageTokens): ServiceImpl<typeof ApprovalService> {
  return {
    async getApproval({ approvalId }, context) {
      return { approval: approvalToProto(await approvals.get(callOf(context), approvalId)) };
    },

    async listApprovals({ runId, sessionId, state, pageSize: asked, pageToken }, context) {
      const call = callOf(context);
      const filter = { runId: runId || undefined, sessionId: sessionId || undefined, state: state || undefined };
      const scope = { call, list: "approvals", filter };
      const limit = pageSize(asked);
      const after = openPage<Cursor>(tokens, pageToken, scope);
      const rows = await approvals.list(call, filter, { limit: limit + 1, after });
      const last = rows[limit - 1];
      const more = rows.length > limit && last !== undefined;
      return {
        approvals: rows.slice(0, limit).map(approvalToProto),
        nextPageToken: more ? sealPage(tokens, { time: last.sort_time, id: last.approval_id }, scope) : "",
      };
    },

    async resolveApproval(request, context) {
      const { $typeName: _name, $unknown: _unknown, ...decision } = request;
      const { approval, appliedThrough } = await approvals.resolve(callOf(context), decision);
      return { approval: approvalToProto(approval), appliedThroughSeq: appliedThrough };
    },
  };
}
