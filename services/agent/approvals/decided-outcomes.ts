import { ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { ToolOutcome } from "../engine/tool-spec.ts";
import type { ApprovalRow } from "../store/approval-store.ts";

/** What the model is told of a call that was not to be made. */
export function deniedOutcome(tool: string, { state, comment }: Pick<ApprovalRow, "state" | "comment">): ToolOutcome {
  const why =
    state === ApprovalState.EXPIRED
      ? "Nobody has approved it in time."
      : comment === ""
        ? "It was not approved."
        : `It was not approved: ${comment}`;
  return failed(`The call of "${tool}" was not made. ${why}`);
}

/** The result that a person has given; a JSON string stands for its text. */
export function answerOutcome(answerJson: string): ToolOutcome {
  const answer: unknown = JSON.parse(answerJson);
  if (typeof answer === "string") return { content: [{ type: "text", text: answer }] };
  return { content: [{ type: "text", text: answerJson }], structuredJson: answerJson };
}

/** What the model is told where nobody could say what became of a call. */
export function unknownOutcome(comment: string): ToolOutcome {
  const text = "The outcome of this call is not known; it may or may not have taken effect.";
  return { ...failed(comment === "" ? text : `${text} ${comment}`), unknown: true };
}

/** Stands behind the result of a call whose arguments were changed: the model's own are still in its conversation. */
export function editedNote(argumentsJson: string): string {
  return `[A person has changed the arguments before the call was made: ${argumentsJson}]`;
}

function failed(text: string): ToolOutcome {
  return { content: [{ type: "text", text }], isError: true };
}
