import { APIConnectionError, APIConnectionTimeoutError, APIError } from "openai";
import { ModelError, type ModelErrorFacts, type ModelErrorKind } from "./model-error.ts";
import { retryAfter, transportFailure } from "./transport-failure.ts";

const maxDetail = 500;

/** A failure of the SDK, of the door or of the stream as a {@link ModelError}. `now` is for a Retry-After that names a date. */
export function toModelError(error: unknown, now: () => number): ModelError {
  if (error instanceof ModelError) return error;
  if (error instanceof APIConnectionTimeoutError) return new ModelError("timeout", { retryable: true });
  if (error instanceof APIConnectionError) {
    return transportFailure(error.cause) ?? new ModelError("connection", { retryable: true, cause: error.cause });
  }
  if (error instanceof APIError && error.status !== undefined) {
    const retryAfterMs = retryAfter(error.headers, now);
    return classify(error.status, error.error ?? error.message, {
      ...(error.requestID ? { requestId: error.requestID } : {}),
      ...(retryAfterMs !== undefined && { retryAfterMs }),
    });
  }
  const failure = transportFailure(error);
  if (failure !== undefined) return failure;
  // A mistake in the request or in the program: asking again would make it again.
  return new ModelError("invalid_request", { retryable: false, cause: error });
}

/** What an `error` in the middle of a stream says. */
export function fromStreamError(error: unknown): ModelError {
  const code = (error as { code?: unknown } | null)?.code;
  const status = Number(code);
  return classify(status >= 400 && status < 600 ? status : undefined, error, {});
}

/**
 * Status, code and words decide, in that order of trust: OpenAI documents codes (developers.openai.com/api/docs/guides/
 * error-codes), other servers of its API have their own or none.
 */
function classify(status: number | undefined, body: unknown, more: Partial<ModelErrorFacts>): ModelError {
  const error: Record<string, unknown> = typeof body === "object" && body !== null ? { ...body } : { message: body };
  const code = text(error["code"]) ?? text(error["type"]);
  const message = text(error["message"]) ?? "";
  const [kind, retryable] = verdict(status, `${text(error["code"])} ${text(error["type"])}`, message);
  return new ModelError(kind, {
    ...more,
    retryable,
    detail: message.slice(0, maxDetail),
    ...(status !== undefined && { status }),
    ...(code !== undefined && { code: code.slice(0, 64) }),
  });
}

const overflow =
  /maximum context length|context[ _](length|window|size)|prompt is too long|exceeds? .{0,40}\bcontext\b|too many (input )?tokens/i;

function verdict(status: number | undefined, codes: string, message: string): [ModelErrorKind, retryable: boolean] {
  // Money is gone until somebody acts.
  if (status === 402 || /insufficient_quota|billing|insufficient_balance/i.test(codes)) return ["rate_limited", false];
  if (codes.includes("context_length_exceeded")) return ["context_overflow", false];
  if (status === 429 || /rate_limit|too_many_requests/i.test(codes)) return ["rate_limited", true];
  if (status === 401 || status === 403 || /authentication|invalid_api_key|permission/i.test(codes)) {
    return ["authentication", false];
  }
  if (status === 413) return ["context_overflow", false];
  // Some servers answer 500 to a prompt that is too long.
  if (overflow.test(message)) return ["context_overflow", false];
  if (status === 408 || status === 504 || /timeout/i.test(codes)) return ["timeout", true];
  if (status === 409) return ["server", true];
  if (status !== undefined && status < 500) return ["invalid_request", false];
  if (status === 503 || status === 529 || /overloaded/i.test(codes)) return ["overloaded", true];
  if (status === undefined && /invalid_request|not_found/i.test(codes)) return ["invalid_request", false];
  return ["server", true];
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
