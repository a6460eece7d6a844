import { Code } from "@connectrpc/connect";
import { AppError, type AppErrorInit } from "#platform/rpc/errors.ts";

/** An error for which HTTP has a more exact status than the one of its code. */
export class HttpError extends AppError {
  readonly httpStatus: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(httpStatus: number, init: AppErrorInit, headers: Readonly<Record<string, string>> = {}) {
    super(init);
    this.httpStatus = httpStatus;
    this.headers = headers;
  }
}

export function routeNotFound(): HttpError {
  return new HttpError(404, {
    code: Code.NotFound,
    reason: "ROUTE_NOT_FOUND",
    message: "There is nothing at this path.",
  });
}

/** RFC 9110 §15.5.6: `Allow` is a must. */
export function methodNotAllowed(allow: readonly string[]): HttpError {
  const methods = allow.join(", ");
  return new HttpError(
    405,
    { code: Code.Unimplemented, reason: "ROUTE_NOT_FOUND", message: `This path answers ${methods} only.` },
    { allow: methods },
  );
}

export function payloadTooLarge(maxBytes: number): HttpError {
  return new HttpError(413, {
    code: Code.ResourceExhausted,
    reason: "PAYLOAD_TOO_LARGE",
    message: `The body is larger than ${maxBytes} bytes.`,
    facts: { max_bytes: String(maxBytes) },
  });
}

export function targetTooLong(maxBytes: number): HttpError {
  return new HttpError(414, {
    code: Code.ResourceExhausted,
    reason: "PAYLOAD_TOO_LARGE",
    message: `Path and query are longer than ${maxBytes} bytes.`,
    facts: { max_bytes: String(maxBytes) },
  });
}

export function headersTooLarge(maxBytes: number, maxHeaders: number): HttpError {
  return new HttpError(431, {
    code: Code.ResourceExhausted,
    reason: "PAYLOAD_TOO_LARGE",
    message: `The headers are larger than ${maxBytes} bytes, or more than ${maxHeaders}.`,
    facts: { max_bytes: String(maxBytes) },
  });
}

export function unsupportedMediaType(problem: string): HttpError {
  return new HttpError(415, {
    code: Code.InvalidArgument,
    reason: "BODY_MALFORMED",
    message: `${problem} Send JSON with "Content-Type: application/json".`,
  });
}

export function bodyMalformed(problem: string): AppError {
  return new AppError({
    code: Code.InvalidArgument,
    reason: "BODY_MALFORMED",
    message: `The body is not readable as JSON: ${problem}.`,
  });
}

export function bodyTooSlow(): HttpError {
  return new HttpError(408, {
    code: Code.DeadlineExceeded,
    reason: "DEADLINE",
    message: "The body did not arrive in time.",
  });
}
