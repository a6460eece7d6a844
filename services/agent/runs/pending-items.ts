import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { type AwaitedItem, AwaitedKind } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { PendingApprovalSchema, PendingToolCallSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";

type PendingApproval = MessageInitShape<typeof PendingApprovalSchema>;
type PendingToolCall = MessageInitShape<typeof PendingToolCallSchema>;

/** Types of the events that {@link PendingItems} has to see. */
export const PENDING_EVENTS = ["approval_requested", "approval_resolved", "tool_call_requested"] as const;

/** What a run waits for, with all that a chat client needs to show or to do it. */
export class PendingItems {
  readonly #approvals = new Map<string, PendingApproval>();
  readonly #calls = new Map<string, PendingToolCall>();

  see({ payload, itemId: callId }: AgentEvent): void {
    switch (payload.case) {
      case "approvalRequested": {
        const { $typeName: _name, $unknown: _unknown, ...asked } = payload.value;
        this.#approvals.set(asked.approvalId, { ...asked, callId });
        break;
      }
      case "toolCallRequested": {
        const { tool, argumentsJson, clientExecuted } = payload.value;
        if (clientExecuted) this.#calls.set(callId, { callId, tool, argumentsJson });
        break;
      }
      case "approvalResolved": {
        const { editedArgumentsJson: argumentsJson } = payload.value;
        const call = this.#calls.get(callId);
        if (call !== undefined && argumentsJson !== "") this.#calls.set(callId, { ...call, argumentsJson });
        break;
      }
    }
  }

  /** Those of the awaited items. */
  of(awaiting: readonly Pick<AwaitedItem, "callId" | "approvalId" | "kind">[]) {
    return {
      pendingApprovals: awaiting.flatMap(({ approvalId }) => this.#approvals.get(approvalId) ?? []),
      pendingToolCalls: awaiting.flatMap(({ callId, kind }) =>
        kind === AwaitedKind.TOOL_RESULTS ? (this.#calls.get(callId) ?? []) : [],
      ),
    };
  }
}
