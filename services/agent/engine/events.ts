import type { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type { ContentPart, ModelMessage } from "../llm/chat-model.ts";

/** Tokens of one provider's model; the classes do not overlap, output includes reasoning. */
export interface ModelUsage {
  provider: string;
  model: string;
  inputTokens: number;
  cacheReadTokens: number;
  cacheWriteTokens: number;
  outputTokens: number;
}

/**
 * What the loop tells while it runs: the payloads of `AgentEvent` that belong to steps and items, one to one and under the
 * same names, without the envelope. Offsets are in UTF-8 bytes. Within a step the order is: `step_started`; deltas of
 * items; what completes them; each call's `tool_call_requested` and `tool_call_completed`; `step_completed`.
 * Every started item is completed, requested (calls) or discarded before its step is completed.
 */
export type EngineEvent =
  | { type: "step_started"; step: number; provider: string; model: string }
  | StepCompleted
  | { type: "message_started"; itemId: string }
  | { type: "text_delta"; itemId: string; offset: number; text: string }
  | { type: "message_completed"; itemId: string; parts: ContentPart[] }
  /** Every item of the step that was shown and not completed is void. */
  | { type: "item_discarded"; step: number; cause: DiscardCause }
  | { type: "reasoning_delta"; itemId: string; offset: number; text: string }
  | { type: "reasoning_completed"; itemId: string; text: string }
  | { type: "tool_call_started"; itemId: string; tool: string }
  | { type: "tool_call_arguments_delta"; itemId: string; offset: number; jsonFragment: string }
  | { type: "tool_call_requested"; itemId: string; tool: string; argumentsJson: string; risk: RiskClass }
  | { type: "tool_call_progress"; itemId: string; message: string; fraction: number }
  | ToolCallCompleted
  | EngineNotice;

export interface StepCompleted {
  type: "step_completed";
  step: number;
  /** The model port's word, or `cancelled` or `error` for a call that broke off. */
  finishReason: string;
  usage: ModelUsage;
  /** What this step adds to the history, in order; the history is valid with them. */
  messages: ModelMessage[];
}

export interface ToolCallCompleted {
  type: "tool_call_completed";
  itemId: string;
  tool: string;
  content: ContentPart[];
  /** Empty: none. */
  structuredJson: string;
  isError: boolean;
  /** As the executor measured it; 0 where there was nothing to measure. */
  durationMs: number;
}

export interface EngineNotice {
  type: "notice";
  /** Machine-readable, such as `MODEL_RETRY`. */
  reason: string;
  message: string;
  facts: Record<string, string>;
  /** True: the platform is trying again. */
  retrying: boolean;
}

export type DiscardCause = "model_retry" | "model_failed" | "cancelled" | "not_executed";

/** How a run ended with a result: the names of `RunOutcome`. */
export type LoopOutcome = "ANSWERED" | "DONE_TOOL" | "MAX_ITERATIONS" | "INCOMPLETE" | "REFUSED" | "LENGTH";

export interface LoopResult {
  outcome: LoopOutcome;
  /** The answer. Empty when the model gave none. */
  text: string;
  /** Of all model calls, by provider and model. */
  usage: ModelUsage[];
}

/** A notice with the fields that most leave empty. */
export function notice(reason: string, message: string, more: Partial<EngineNotice> = {}): EngineNotice {
  return { type: "notice", reason, message, facts: {}, retrying: false, ...more };
}
