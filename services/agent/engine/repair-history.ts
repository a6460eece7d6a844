import type { ModelMessage, ToolResultPart } from "../llm/chat-model.ts";

/** A history that a provider accepts, and what had to be done for that. */
export interface RepairedHistory {
  messages: ModelMessage[];
  /** Calls that had no result and were given one that says so. */
  added: number;
  /** Results that belonged to no call, or to one that had its result already. */
  dropped: number;
}

/**
 * Gives every tool call exactly one result, right behind the message that made it and in call order. A process that dies
 * between a call and its result leaves such gaps. What is sound comes out as it went in; the stored history is not
 * touched, so the same repair is made each time.
 */
export function repairHistory(history: readonly ModelMessage[]): RepairedHistory {
  const messages: ModelMessage[] = [];
  let added = 0;
  let kept = 0;
  for (const [i, message] of history.entries()) {
    if (message.role === "tool") continue;
    messages.push(message);
    if (message.role !== "assistant") continue;
    const calls = message.content.filter((part) => part.type === "tool_call");
    if (calls.length === 0) continue;
    const results = resultsAfter(history, i);
    const content = calls.map(({ callId }) => {
      const result = results.get(callId);
      if (result === undefined) added++;
      else kept++;
      return result ?? lostResult(callId);
    });
    messages.push({ role: "tool", content });
  }
  const stored = history.reduce((sum, message) => sum + (message.role === "tool" ? message.content.length : 0), 0);
  return { messages, added, dropped: stored - kept };
}

/** The first result for each call between an assistant message and the next one. */
function resultsAfter(history: readonly ModelMessage[], index: number): Map<string, ToolResultPart> {
  const results = new Map<string, ToolResultPart>();
  for (let i = index + 1; i < history.length; i++) {
    const message = history[i] as ModelMessage;
    if (message.role === "assistant") break;
    if (message.role !== "tool") continue;
    for (const part of message.content) if (!results.has(part.callId)) results.set(part.callId, part);
  }
  return results;
}

function lostResult(callId: string): ToolResultPart {
  const text = "The call was interrupted and its result is not known. It may or may not have taken effect.";
  return { type: "tool_result", callId, content: [{ type: "text", text }], isError: true };
}
