/**
 * The model port: what the engine asks a language model and what comes back, in words that belong to no provider.
 * Messages are plain JSON and are stored as they are.
 */

export interface TextPart {
  type: "text";
  text: string;
}

export interface ImagePart {
  type: "image";
  /** IANA media type, such as `image/png`. */
  mediaType: string;
  /** The bytes in base64. */
  data: string;
}

/**
 * Reasoning of the model. Inside a tool loop it goes back to the model that wrote it unchanged, signature included;
 * the signature means nothing to anybody else and never leaves the server.
 */
export interface ThinkingPart {
  type: "thinking";
  /** Summary as the model gave it; empty when it shows none. */
  text: string;
  signature: string;
  /** True: there is no readable text, the signature holds everything. */
  redacted?: boolean;
  /** Provider that made it; others leave it out of their requests. */
  origin: string;
}

export interface ToolCallPart {
  type: "tool_call";
  /** Our id, `call_…`. */
  callId: string;
  /** The provider's own id for the call, which it expects to see again. */
  providerCallId?: string;
  name: string;
  /** Arguments as the model wrote them; usually, but not surely, a JSON object. */
  argumentsJson: string;
}

export interface ToolResultPart {
  type: "tool_result";
  callId: string;
  content: ContentPart[];
  isError: boolean;
  /** Name of the tool; results that were stored before it was kept lack it. */
  tool?: string;
  /** True: the tool said more than this; the whole can be read by the call's id. */
  truncated?: true;
}

/** What people and tools say. */
export type ContentPart = TextPart | ImagePart;
export type AssistantPart = TextPart | ThinkingPart | ToolCallPart;

export interface UserMessage {
  role: "user";
  /** `msg_…`. Messages that were made to repair a history have none. It is not sent to providers. */
  id?: string;
  content: ContentPart[];
  /** Written by the platform: sent to the model and stored, not shown as chat. */
  hidden?: boolean;
}

export interface AssistantMessage {
  role: "assistant";
  /** `msg_…`. Messages that were made to repair a history have none. It is not sent to providers. */
  id?: string;
  /** In the order in which the model wrote them. */
  content: AssistantPart[];
}

export interface ToolMessage {
  role: "tool";
  /** `msg_…`. Messages that were made to repair a history have none. It is not sent to providers. */
  id?: string;
  /** The results of one turn, in call order. */
  content: ToolResultPart[];
}

export type ModelMessage = UserMessage | AssistantMessage | ToolMessage;

/** A tool as a model sees it. */
export interface ModelTool {
  name: string;
  description: string;
  /** JSON Schema (2020-12) of an object. */
  inputSchema: Record<string, unknown>;
}

/** Whether the model may call tools: as it likes, not at all, at least one, or this one. */
export type ToolChoice = "auto" | "none" | "any" | { tool: string };

export interface ModelRequest {
  model: string;
  /** Empty: none. */
  system: string;
  messages: readonly ModelMessage[];
  tools: readonly ModelTool[];
  /** Most output tokens; lowered to what the model can do. */
  maxTokens: number;
  /** 0-2. Left out for models that refuse it. */
  temperature?: number;
  toolChoice?: ToolChoice;
  metadata?: RequestMetadata;
}

export interface RequestMetadata {
  /** Opaque id of the end user, for the provider's abuse detection. */
  userId?: string;
}

/** A credential for model calls. */
export interface ModelCredential {
  apiKey: string;
  /** The server to ask in place of the provider's usual one. */
  baseUrl?: string;
  /** What breakers and limits are kept by: `platform`, or `own:<tenant>:<version>`. It is no secret. */
  id: string;
}

export interface StreamOptions {
  /** Ends the request, its socket and any wait for a retry. The stream rejects with the signal's reason. */
  signal: AbortSignal;
  /** A tenant's own credential for this call, in place of the platform's. */
  credential?: ModelCredential;
  /** A call that fails after output was seen may be asked again: a `discard` event says that the output is void. */
  mayDiscard?: boolean;
  /** Told of each retry when it is decided on, before the wait. */
  onRetry?: (retry: RetryEvent) => void;
}

/**
 * Tokens of one model call so far. The classes do not overlap; output includes reasoning. Several of these may come in
 * one call: each replaces the one before it, so that a call that breaks off is billed for what is known of it.
 */
export interface UsageEvent {
  type: "usage";
  provider: string;
  /** Model name as the provider gave it back. */
  model: string;
  inputTokens: number;
  cacheReadTokens: number;
  cacheWriteTokens: number;
  outputTokens: number;
}

export type FinishReason = "end_turn" | "tool_use" | "length" | "refusal" | "pause" | "stop_sequence" | "other";

/** Something worth telling that does not end the call. */
export interface NoticeEvent {
  type: "notice";
  /** Machine-readable, such as `DEMO_MODEL` or `TEMPERATURE_IGNORED`. */
  reason: string;
  message: string;
  facts?: Record<string, string>;
}

/** The call failed and is asked again after a wait. */
export interface RetryEvent {
  type: "retry";
  /** The attempt that comes, from 2. */
  attempt: number;
  delayMs: number;
  /** {@link ModelErrorKind} of the failure. */
  kind: string;
}

/**
 * What a model says, in order. `id` is the provider's id of a tool call. Deltas of a thing come before the thing: after
 * its deltas a thinking block and a tool call are given whole, text is not. `finish` is last and comes exactly once,
 * unless the stream rejects. Text is well-formed Unicode in every event.
 */
export type ModelEvent =
  | { type: "text_delta"; text: string }
  | { type: "thinking_delta"; text: string }
  | { type: "thinking"; part: ThinkingPart }
  | { type: "tool_call_started"; id: string; name: string }
  | { type: "tool_arguments_delta"; id: string; json: string }
  | { type: "tool_call"; id: string; name: string; argumentsJson: string }
  | UsageEvent
  | NoticeEvent
  | RetryEvent
  /** Everything since the call began is void; it begins anew. */
  | { type: "discard" }
  | { type: "finish"; reason: FinishReason };

/**
 * A language model behind some provider. `stream` begins when it is iterated, can be iterated once, and rejects with a
 * {@link ModelError} or with the signal's reason. It never hangs: every wait ends with the signal or with a timeout.
 */
export interface ChatModel {
  /** Provider as it appears in usage and events, such as `anthropic`. */
  readonly provider: string;
  stream(request: ModelRequest, options: StreamOptions): AsyncIterable<ModelEvent>;
}
