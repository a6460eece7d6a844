import type { ModelMessage, ModelRequest, StreamOptions, UserMessage } from "../llm/chat-model.ts";
import type { ComingRequest } from "./context/compact.ts";
import { estimateFrame } from "./context/estimate.ts";
import { hiddenMessage, lastAnswer, simplifiedMode } from "./hidden-messages.ts";
import type { LoopInput, ModelRung } from "./loop-input.ts";
import type { ToolSet } from "./tool-set.ts";

/** The hidden messages with which a turn begins. */
export function leadOf({ injections, newItemId }: LoopInput, isLastCall: boolean): UserMessage[] {
  const lead = (injections?.() ?? []).map(
    (message): UserMessage => ({ ...message, id: message.id ?? newItemId("msg"), hidden: true }),
  );
  return isLastCall ? [...lead, hiddenMessage(lastAnswer, newItemId("msg"))] : lead;
}

/** Bytes of one result, so that no single one fills the model's window: a byte for each of its tokens. */
export function outputBytes({ contextWindow }: ModelRung): number {
  return Math.min(1024 * 1024, Math.max(16 * 1024, contextWindow));
}

/** What is known of a step's request before the context is prepared for it. */
export function toComing(
  input: LoopInput,
  step: number,
  rung: ModelRung,
  tools: ToolSet,
  lead: UserMessage[],
): ComingRequest {
  const isSimplified = rung.kind === "simplified";
  const offered = isSimplified ? [] : tools.list;
  const system = isSimplified
    ? [input.system, simplifiedMode].filter((part) => part !== "").join("\n\n")
    : input.system;
  return { step, rung, system, tools: offered, frame: estimateFrame(system, offered), lead };
}

/** The request of a step. */
export function toRequest(
  input: LoopInput,
  { rung, system, tools }: ComingRequest,
  messages: ModelMessage[],
  isLastCall: boolean,
): ModelRequest {
  return {
    model: rung.modelName,
    system,
    messages,
    // Tools stay in the last request too: the provider's cache keeps its prefix, and a history with calls needs them.
    tools,
    toolChoice: isLastCall ? "none" : "auto",
    maxTokens: input.limits.maxTokens,
    ...(input.temperature !== undefined && { temperature: input.temperature }),
    ...(input.metadata !== undefined && { metadata: input.metadata }),
  };
}

/** How a step's model is asked. */
export function streamOptions({ credential }: ModelRung, signal: AbortSignal): StreamOptions {
  return { signal, mayDiscard: true, ...(credential !== undefined && { credential }) };
}
