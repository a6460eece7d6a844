/** What went wrong with a model call, for a decision about it. */
export type ModelErrorKind =
  | "rate_limited"
  | "overloaded"
  | "invalid_request"
  | "authentication"
  | "context_overflow"
  | "timeout"
  | "connection"
  | "malformed_stream"
  | "server";

/** Facts about a failed model call. */
export interface ModelErrorFacts {
  /** Whether the same request may succeed later. */
  retryable: boolean;
  /** How long the provider asked to wait, in milliseconds. */
  retryAfterMs?: number;
  /** HTTP status, when there was a response. */
  status?: number;
  /** The provider's machine-readable code, such as `overloaded_error`. */
  code?: string;
  /** The provider's id of the request, for its support. */
  requestId?: string;
  /** The provider's own words, for the operator's log only: they may quote the request. */
  detail?: string;
  cause?: unknown;
}

const messages: Record<ModelErrorKind, string> = {
  rate_limited: "the model provider's rate or spend limit is reached",
  overloaded: "the model provider is overloaded",
  invalid_request: "the model provider refused the request",
  authentication: "the model provider refused the credential",
  context_overflow: "the conversation is longer than the model's context window",
  timeout: "the model provider did not answer in time",
  connection: "the connection to the model provider failed",
  malformed_stream: "the model's answer broke off or could not be read",
  server: "the model provider failed",
};

/** A model call that failed. The message is made for callers: it holds no credential and nothing of the request. */
export class ModelError extends Error {
  readonly kind: ModelErrorKind;
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly status: number | undefined;
  readonly code: string | undefined;
  readonly requestId: string | undefined;
  readonly detail: string | undefined;

  constructor(kind: ModelErrorKind, facts: ModelErrorFacts) {
    super(messages[kind], facts.cause === undefined ? undefined : { cause: facts.cause });
    this.name = "ModelError";
    this.kind = kind;
    this.retryable = facts.retryable;
    this.retryAfterMs = facts.retryAfterMs;
    this.status = facts.status;
    this.code = facts.code;
    this.requestId = facts.requestId;
    this.detail = facts.detail;
  }
}
