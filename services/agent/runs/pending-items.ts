import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { PendingApprovalSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";

type PendingApproval = MessageInitShape<typeof PendingApprovalSchema>;

/** Types of the events that {@link PendingItems} has to see. */
export const PENDING_EVENTS = ["approval_requested"] as const;

/** What a run waits for, with all that a chat client needs to show or to do it. */
export class PendingItems {
  readonly #approvals = new Map<string, PendingApproval>();

  see({ payload, itemId: callId }: AgentEvent): void {
    if (payload.case !== "approvalRequested") return;
    const { $typeName: _name, $unknown: _unknown, ...asked } = payload.value;
    this.#approvals.set(asked.approvalId, { ...asked, callId });
  }

  /** Those of the awaited items. */
  of(awaiting: readonly { approvalId: string }[]): { pendingApprovals: PendingApproval[] } {
    return { pendingApprovals: awaiting.flatMap(({ approvalId }) => this.#approvals.get(approvalId) ?? []) };
  }
}
