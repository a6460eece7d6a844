import { ApprovalDecision, ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";

/** What can be decided of every approval. */
export const ALLOWED_DECISIONS = [ApprovalDecision.APPROVE, ApprovalDecision.DENY, ApprovalDecision.ANSWER] as const;

/** "APPROVED" for the state of that name. */
export const STATE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(ApprovalState).map(([name, state]) => [state, name]),
);

/** What an approval becomes by a decision. */
export const STATE_AFTER: Readonly<Record<number, ApprovalState>> = {
  [ApprovalDecision.APPROVE]: ApprovalState.APPROVED,
  [ApprovalDecision.DENY]: ApprovalState.DENIED,
  [ApprovalDecision.ANSWER]: ApprovalState.ANSWERED,
};
