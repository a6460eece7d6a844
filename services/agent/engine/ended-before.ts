import type { ModelMessage } from "../llm/chat-model.ts";
import type { LoopOutcome } from "./events.ts";
import type { LoopInput } from "./loop-input.ts";
import { doneToolName } from "./tool-spec.ts";

/**
 * The end of a run whose earlier attempt stored its last step and did not come to write that it had ended. The model must
 * not be asked again then: it would see its own answer as the last message.
 */
export function endedBefore({
  resume,
  history,
  limits,
}: Pick<LoopInput, "resume" | "history"> & { limits: Pick<LoopInput["limits"], "maxIterations"> }):
  | { outcome: LoopOutcome; text: string }
  | undefined {
  if (resume === undefined || resume.openStep !== undefined || resume.lastFinish === undefined) return undefined;
  const last = history.at(-1);
  if (last?.role === "tool") return doneBy(last.content, history.at(-2));
  if (last?.role !== "assistant") return undefined;
  const text = last.content.reduce((all, part) => (part.type === "text" ? all + part.text : all), "");
  switch (resume.lastFinish) {
    case "pause":
    case "cancelled":
      return undefined;
    case "refusal":
      return { outcome: "REFUSED", text };
    case "error":
      return { outcome: "DEGRADED", text };
    case "tool_use":
      return { outcome: "DONE_TOOL", text };
    default:
      if (resume.toolTurns >= limits.maxIterations) return { outcome: "MAX_ITERATIONS", text };
      return { outcome: resume.lastFinish === "length" ? "LENGTH" : "ANSWERED", text };
  }
}

/** The `done` call of which the answer had been said already, so that no message was added for it. */
function doneBy(results: readonly { callId: string; tool?: string; isError: boolean }[], asked?: ModelMessage) {
  const done = results.find(({ tool, isError }) => tool === doneToolName && !isError);
  if (done === undefined || asked?.role !== "assistant") return undefined;
  const text = asked.content.reduce((all, part) => (part.type === "text" ? all + part.text : all), "");
  return { outcome: "DONE_TOOL" as const, text };
}
