import type { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import type { ContentPart, ModelMessage, UserMessage } from "../llm/chat-model.ts";

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
 * items; `model_called`; what completes them; each call's `tool_call_requested` and `tool_call_completed`;
 * `step_completed`. What is done to the context, with the calls of a model that it takes, is told between two steps.
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
  | ToolCallRequested
  | { type: "tool_call_progress"; itemId: string; message: string; fraction: number }
  | CallsPlanned
  | ToolCallCompleted
  | Escalated
  | ModelCalled
  | ContextCompacted
  | ToolOutputsEvicted
  | InputAccepted
  | EngineNotice;

/** The user has said something while the run was at work; it is a part of the history from here on. */
export interface InputAccepted {
  type: "input_accepted";
  /** With its id. */
  message: UserMessage;
  /** What is shown of it, where that differs from what it holds. */
  shown?: ContentPart[];
}

export interface StepCompleted {
  type: "step_completed";
  step: number;
  /** The model port's word, or `cancelled` or `error` for a call that broke off. */
  finishReason: string;
  usage: ModelUsage;
  /** What this step adds to the history, in order; the history is valid with them. */
  messages: ModelMessage[];
}

/**
 * The model has asked for tools: all that another attempt needs to go on with this step (see `ResumedStep`). Comes when
 * every call was requested and none of them has been run, and is to be stored behind the requests.
 */
export interface CallsPlanned {
  type: "calls_planned";
  step: number;
  usage: ModelUsage;
  /** What the step has added to the history so far; the last message holds the calls. */
  messages: ModelMessage[];
  /** Those that will be run or suspended, in order; the others are answered without that. */
  calls: { callId: string; tool: string; argumentsJson: string; risk: RiskClass }[];
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
  /** True: the content was cut; its text says how to read on. */
  truncated?: boolean;
  /** Calls of this tool that are left in the current minute, where there is a limit. */
  callsLeft?: number;
}

/** The model has asked for a tool. */
export interface ToolCallRequested {
  type: "tool_call_requested";
  itemId: string;
  tool: string;
  argumentsJson: string;
  risk: RiskClass;
  /** True: the run's caller executes it. */
  client?: boolean;
}

/** A tool handed the conversation to people. */
export interface Escalated {
  type: "escalated";
  reason: string;
  priority: EscalationPriority;
}

export type EscalationPriority = "low" | "normal" | "high";

/** What a model was called for. */
export type ModelCallPurpose = "turn" | "summary" | "sub_agent";

/** One call of a model, as it is to be booked; also an attempt that broke off or was cancelled after it had cost something. */
export interface ModelCalled {
  type: "model_called";
  /** The step that it belongs to or that comes. */
  step: number;
  purpose: ModelCallPurpose;
  provider: string;
  /** Model as the provider named it. */
  model: string;
  /** The credential's id; `platform` where the platform's own was used. */
  credentialId: string;
  usage: ModelUsage;
  /** True: the call did not end as it should; the usage is what was known by then. */
  aborted: boolean;
  /** For callers that measure; the engine has no clock. */
  durationMs?: number;
}

/**
 * A part of the history was replaced by a summary in what the model sees: from now on the history is the messages of
 * `keptMessageIds`, `message`, and everything from `firstKeptMessageId` on.
 */
export interface ContextCompacted {
  type: "context_compacted";
  summary: string;
  /** Messages that the summary stands for. */
  messages: number;
  /** First message behind the summary. */
  firstKeptMessageId: string;
  /** Messages in front of the summary, in order: the original request, and the one that is being worked on. */
  keptMessageIds: string[];
  /** The hidden message that holds the summary. */
  message: UserMessage;
  /** Estimated tokens of the request before and after. */
  tokensBefore: number;
  tokensAfter: number;
}

/** Outputs that the model has seen were replaced by placeholders in what it sees. */
export interface ToolOutputsEvicted {
  type: "tool_outputs_evicted";
  callIds: string[];
  /** Estimated tokens that each further request saves. */
  tokensSaved: number;
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

export type DiscardCause = "model_retry" | "model_failed" | "cancelled" | "not_executed" | "rewritten";

/** How a run ended with a result: the names of `RunOutcome`, and one for a run that has not ended. */
export type LoopOutcome =
  | "ANSWERED"
  | "DONE_TOOL"
  | "MAX_ITERATIONS"
  | "INCOMPLETE"
  | "REFUSED"
  | "LENGTH"
  | "DEGRADED"
  /** Not ended: a call waits; the step is open. */
  | "SUSPENDED";

/** A call that has not been executed, with its arguments as they would be. */
export interface WaitingCall {
  callId: string;
  name: string;
  argumentsJson: string;
}

export interface LoopResult {
  outcome: LoopOutcome;
  /** The answer. Empty when the model gave none. */
  text: string;
  /** Of all model calls of this attempt, by provider and model. */
  usage: ModelUsage[];
  /** With SUSPENDED: the calls without an outcome that are to be executed, in order. */
  waiting?: WaitingCall[];
}

/** A notice with the fields that most leave empty. */
export function notice(reason: string, message: string, more: Partial<EngineNotice> = {}): EngineNotice {
  return { type: "notice", reason, message, facts: {}, retrying: false, ...more };
}
