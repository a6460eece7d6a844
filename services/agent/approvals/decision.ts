import { Code } from "@connectrpc/connect";
import { ApprovalDecision, ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import { AppError, invalidFields } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { checkArguments } from "../engine/check-arguments.ts";
import { approvalAlreadyResolved, approvalExpired, approverNotAllowed } from "../errors.ts";
import type { ApprovalRow, Resolution } from "../store/approval-store.ts";
import type { RunRow } from "../store/run-store.ts";
import type { DecisionRequest } from "./approvals.ts";
import { ALLOWED_DECISIONS, STATE_AFTER, STATE_NAMES } from "./decisions.ts";

/** Throws APPROVER_NOT_ALLOWED for the credential that the run works for, and for the run's user where two are needed. */
export function checkApprover(
  { subject, userId }: Principal,
  { principal: asked, end_user_id: user }: Pick<RunRow, "principal" | "end_user_id">,
  { requires_other_principal: needsOther }: Pick<ApprovalRow, "requires_other_principal">,
): void {
  if (subject === asked.subject) throw approverNotAllowed("own_run");
  if (!needsOther || userId === undefined) return;
  if (userId === user || userId === asked.userId) throw approverNotAllowed("own_user");
}

/**
 * What an approval becomes by a decision. Throws when it does not fit the approval, or comes too late; of an approval that
 * was decided before only the same decision is taken.
 */
export function checkDecision(approval: ApprovalRow, request: DecisionRequest): Omit<Resolution, "resolvedBy"> {
  const { decision, argumentsSha256, editedArgumentsJson, answerJson } = request;
  const allowed: readonly ApprovalDecision[] = ALLOWED_DECISIONS;
  if (!allowed.includes(decision)) throw wrong("decision", "is not among the approval's allowed_decisions");
  if (argumentsSha256 !== approval.arguments_sha256) {
    throw wrong("arguments_sha256", "is not that of this approval's arguments; read the approval before you decide");
  }
  if (editedArgumentsJson !== "" && decision !== ApprovalDecision.APPROVE) {
    throw wrong("edited_arguments_json", "goes with the decision APPROVE only");
  }
  if ((answerJson !== "") !== (decision === ApprovalDecision.ANSWER)) {
    throw wrong("answer_json", "is required by the decision ANSWER, and goes with it only");
  }
  if (answerJson !== "") checkAnswer(answerJson);
  const resolution = {
    state: STATE_AFTER[decision] ?? ApprovalState.UNSPECIFIED,
    comment: request.comment.replaceAll("\0", "\ufffd"),
    editedArgumentsJson: editedArgumentsJson === "" ? "" : checkEdit(approval, editedArgumentsJson),
    answerJson,
  };
  if (approval.state === ApprovalState.PENDING) {
    if (approval.expire_time.getTime() <= Date.now()) throw approvalExpired();
    return resolution;
  }
  if (approval.state === ApprovalState.EXPIRED) throw approvalExpired();
  const isSame =
    approval.state === resolution.state &&
    approval.comment === resolution.comment &&
    approval.edited_arguments_json === resolution.editedArgumentsJson &&
    approval.answer_json === resolution.answerJson;
  if (!isSame) throw approvalAlreadyResolved(STATE_NAMES.get(approval.state) ?? "");
  return resolution;
}

/** The edited arguments as they will be executed. */
function checkEdit({ tool, schema_json: schema }: ApprovalRow, edited: string): string {
  const checked = checkArguments(tool, JSON.parse(schema) as Record<string, unknown>, edited);
  if ("argumentsJson" in checked) return checked.argumentsJson;
  throw new AppError({
    code: Code.InvalidArgument,
    reason: "SCHEMA_VIOLATION",
    message: checked.problem,
    facts: { tool },
    violations: [{ field: "edited_arguments_json", description: checked.problem }],
  });
}

function checkAnswer(answerJson: string): void {
  try {
    JSON.parse(answerJson);
  } catch {
    throw wrong("answer_json", "is not valid JSON");
  }
}

function wrong(field: string, description: string): AppError {
  return invalidFields({ field, description });
}
