import type { ModelMessage } from "../llm/chat-model.ts";
import type { EngineEvent } from "./events.ts";
import type { ModelTurn } from "./model-turn.ts";

/** Ends a step's call of the model that did not end by itself. */
export function endOfCall(turn: ModelTurn, cause: "cancelled" | "model_failed"): EngineEvent[] {
  const out: EngineEvent[] = [];
  if (cause === "cancelled") turn.complete(out);
  turn.discardRest(cause, out);
  if (turn.owes) turn.book(true, out);
  return out;
}

/** Completes a step of which the model's call did not end: a cancelled answer is kept as far as it was shown. */
export function breakOff(turn: ModelTurn, step: number, added: ModelMessage[], signal: AbortSignal): EngineEvent[] {
  const cancelled = signal.aborted;
  const out = endOfCall(turn, cancelled ? "cancelled" : "model_failed");
  const kept = cancelled ? turn.message() : [];
  const messages = kept.length > 0 ? [...added, ...kept] : [];
  out.push({
    type: "step_completed",
    step,
    finishReason: cancelled ? "cancelled" : "error",
    usage: turn.usage,
    messages,
  });
  return out;
}

/** An answer that no model gave in this step, as a message of the assistant. */
export function say(text: string, itemId: string, added: ModelMessage[]): EngineEvent[] {
  if (text.trim() === "") return [];
  added.push({ role: "assistant", id: itemId, content: [{ type: "text", text }] });
  return [
    { type: "message_started", itemId },
    { type: "text_delta", itemId, offset: 0, text },
    { type: "message_completed", itemId, parts: [{ type: "text", text }] },
  ];
}
