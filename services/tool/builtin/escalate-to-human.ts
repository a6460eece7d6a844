import { defineTool, type Escalation } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";

const MAX_REASON = 1_000;

/** Hands the conversation to people; what that means is up to who runs the conversation. */
export const escalateToHuman = defineTool<Escalation>({
  name: "escalate_to_human",
  description:
    "Asks a person to take this conversation over. Call it when the user asks for a person, when you cannot help, or " +
    "when a decision is not yours to make. Then tell the user that a person was asked.",
  input: {
    type: "object",
    properties: {
      reason: {
        type: "string",
        description: "What the person needs to know: what the user wants and why you cannot help.",
        minLength: 1,
        maxLength: MAX_REASON,
      },
      priority: {
        type: "string",
        enum: ["low", "normal", "high"],
        default: "normal",
        description: "high: somebody is harmed or loses money while waiting. Default: normal.",
      },
    },
    required: ["reason"],
    additionalProperties: false,
  },
  risk: "write",
  concurrencySafe: true,
  idempotent: true,
  timeoutMs: 5_000,
  maxOutputBytes: 8_192,
  category: "support",
  run({ reason: given, priority }) {
    const reason = given
      .toWellFormed()
      .replace(/[\p{Cc}\s]+/gu, " ")
      .trim();
    if (reason === "") throw new ToolError('Parameter "reason" is empty: why is a person needed?');
    return {
      structured: { escalated: true, priority },
      text: `A person was asked to take over (priority ${priority}).`,
      escalation: { reason, priority },
    };
  },
});
