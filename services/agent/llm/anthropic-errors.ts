import { APIConnectionError, APIConnectionTimeoutError, APIError } from "@anthropic-ai/sdk";
import { ModelError, type ModelErrorFacts, type ModelErrorKind } from "./model-error.ts";
import { retryAfter, transportFailure } from "./transport-failure.ts";

const maxDetail = 500;

/**
 * A failure of the SDK, of the door or of the stream as a {@link ModelError}. `now` is for a Retry-After that names a date.
 * Status and type decide, as the API documents them (platform.claude.com/docs/en/api/errors); where a stream reports an
 * error after its 200, the type alone does.
 */
export function toModelError(error: unknown, now: () => number): ModelError {
  if (error instanceof ModelError) return error;
  if (error instanceof APIConnectionTimeoutError)
    return new ModelError("timeout", { retryable: true, cause: error.cause });
  if (error instanceof APIConnectionError) {
    return transportFailure(error.cause) ?? new ModelError("connection", { retryable: true, cause: error.cause });
  }
  if (error instanceof APIError) {
    const retryAfterMs = retryAfter(error.headers, now);
    return classify({
      status: error.status,
      type: error.type ?? undefined,
      code: error.errorCode ?? undefined,
      message: error.apiMessage ?? "",
      ...(error.requestID ? { requestId: error.requestID } : {}),
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    });
  }
  const failure = transportFailure(error);
  if (failure !== undefined) return failure;
  // A mistake in the request or in the program: asking again would make it again.
  return new ModelError("invalid_request", { retryable: false, cause: error });
}

/** What an `error` event inside a stream says. */
export function fromStreamError(body: unknown): ModelError {
  const error = (body as { error?: Record<string, unknown> } | null)?.error ?? {};
  const details = error["details"] as { error_code?: unknown } | null | undefined;
  const requestId = (body as { request_id?: unknown } | null)?.request_id;
  return classify({
    status: undefined,
    type: typeof error["type"] === "string" ? error["type"] : undefined,
    code: typeof details?.error_code === "string" ? details.error_code : undefined,
    message: typeof error["message"] === "string" ? error["message"] : "",
    ...(typeof requestId === "string" && { requestId }),
  });
}

interface Failure {
  status: number | undefined;
  type: string | undefined;
  code: string | undefined;
  message: string;
  requestId?: string;
  retryAfterMs?: number;
}

function classify(failure: Failure): ModelError {
  const [kind, retryable] = verdict(failure);
  const facts: ModelErrorFacts = { retryable, detail: failure.message.slice(0, maxDetail) };
  if (failure.status !== undefined) facts.status = failure.status;
  const code = failure.code ?? failure.type;
  if (code !== undefined) facts.code = code;
  if (failure.requestId !== undefined) facts.requestId = failure.requestId;
  if (failure.retryAfterMs !== undefined) facts.retryAfterMs = failure.retryAfterMs;
  return new ModelError(kind, facts);
}

function verdict({ status, type, code, message }: Failure): [ModelErrorKind, retryable: boolean] {
  // Money is gone until somebody acts: a 429 with such a code, or a 400 with these words, which has no code.
  if (code?.includes("spend_limit") || /reached your specified (workspace )?API usage limits/i.test(message)) {
    return ["rate_limited", false];
  }
  if (status === 402 || type === "billing_error") return ["rate_limited", false];
  if (status === 429 || type === "rate_limit_error") return ["rate_limited", true];
  if (status === 529 || type === "overloaded_error") return ["overloaded", true];
  if (status === 401 || status === 403 || type === "authentication_error" || type === "permission_error") {
    return ["authentication", false];
  }
  if (status === 413 || /prompt is too long|exceeds? (the )?context (window|limit)/i.test(message)) {
    return ["context_overflow", false];
  }
  if (status === 408 || status === 504 || type === "timeout_error") return ["timeout", true];
  if (status === 409 || type === "conflict_error") return ["server", true];
  if (status !== undefined && status < 500) return ["invalid_request", false];
  if (type === "invalid_request_error" || type === "not_found_error") return ["invalid_request", false];
  return ["server", true];
}
