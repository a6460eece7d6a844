import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.ts";
import { AppError, type FieldViolation, reasonOf } from "./errors.ts";
import { ERROR_DOMAIN, type Reason } from "./reasons.ts";

const DEADLINE_MESSAGE = "The deadline passed before the call was done.";
const CANCELLED_MESSAGE = "The call was cancelled.";

type Detail = { desc: DescMessage; value: MessageInitShape<DescMessage> };

/**
 * The one place where errors become wire errors (google.rpc details as AIP-193 has them). An AppError keeps its code,
 * reason and facts; an error that came from another service over a link passes unchanged; an abort becomes CANCELLED or
 * DEADLINE_EXCEEDED; anything else becomes INTERNAL and tells nothing but the request id.
 */
export function toConnectError(error: unknown, requestId: string): ConnectError {
  if (error instanceof AppError) return fromAppError(error, requestId);
  if (error instanceof ConnectError) return fromConnectError(error, requestId);
  if (isAbort(error)) return fromAbort(error, requestId);
  if (isCutRequest(error)) return own(Code.Canceled, "CLIENT_CANCELLED", CANCELLED_MESSAGE, error, requestId);
  return internal(error, requestId);
}

/** True for what Node raises when a client goes away in the middle of its own stream of requests. */
function isCutRequest(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === "ERR_STREAM_PREMATURE_CLOSE";
}

/**
 * What a call failed with whose signal aborted for `reason`: a deadline, a shutdown with an error of ours, or, whatever
 * code the carrier found for it, a caller who left (a client that gives up may reset its stream with INTERNAL_ERROR).
 */
export function fromSignal(reason: unknown, requestId: string): ConnectError {
  const says =
    reason instanceof AppError ||
    isAbort(reason) ||
    (reason instanceof ConnectError && (reason.code === Code.DeadlineExceeded || reasonOf(reason) !== undefined));
  return says
    ? toConnectError(reason, requestId)
    : own(Code.Canceled, "CLIENT_CANCELLED", CANCELLED_MESSAGE, reason, requestId);
}

/** True for request bytes that are no such message, which the library calls an internal error; it is the caller's. */
export function isUnreadable(error: unknown): boolean {
  return error instanceof ConnectError && error.code === Code.Internal && error.rawMessage.startsWith("parse binary: ");
}

/** True for the errors that an aborted AbortSignal raises. */
export function isAbort(error: unknown): error is Error {
  return error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError");
}

/** Node's own functions reject with an AbortError whose cause is the signal's reason: a deadline, or a shutdown. */
function fromAbort(error: Error, requestId: string): ConnectError {
  const { cause } = error;
  if (cause instanceof AppError || cause instanceof ConnectError) return toConnectError(cause, requestId);
  const late = error.name === "TimeoutError" || (isAbort(cause) && cause.name === "TimeoutError");
  if (late) return own(Code.DeadlineExceeded, "DEADLINE", DEADLINE_MESSAGE, error, requestId);
  return own(Code.Canceled, "CLIENT_CANCELLED", CANCELLED_MESSAGE, error, requestId);
}

function fromAppError(error: AppError, requestId: string): ConnectError {
  const details: Detail[] = [infoDetail(error.reason, error.facts)];
  if (error.violations.length > 0) {
    const fieldViolations = shownViolations(error.violations);
    details.push({ desc: BadRequestSchema, value: { fieldViolations } as MessageInitShape<DescMessage> });
  }
  if (error.retryAfterMs !== undefined) {
    details.push({
      desc: RetryInfoSchema,
      value: {
        retryDelay: durationFromMs(Math.max(0, Math.ceil(error.retryAfterMs))),
      } as MessageInitShape<DescMessage>,
    });
  }
  details.push(requestDetail(requestId));
  return new ConnectError(clip(error.message, MAX_MESSAGE), error.code, undefined, details, error);
}

/**
 * Over gRPC an error is trailers, and clients take 8 to 16 KiB of them: what a caller wrote (a key of a map is part of a
 * field's path) must not make its own refusal unreadable.
 */
const MAX_MESSAGE = 2_048;
const MAX_PATH = 200;
const MAX_VIOLATION_BYTES = 3_072;

function shownViolations(violations: readonly FieldViolation[]): FieldViolation[] {
  let bytes = 0;
  return violations
    .map(({ field, description }) => ({ field: clip(field, MAX_PATH), description: clip(description, MAX_MESSAGE) }))
    .filter(({ field, description }) => {
      bytes += Buffer.byteLength(field) + Buffer.byteLength(description);
      return bytes <= MAX_VIOLATION_BYTES;
    });
}

function clip(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1).toWellFormed()}…`;
}

/**
 * A ConnectError without our details was made by the RPC library itself: a deadline, an unreadable body, an unreachable
 * peer. It gets the reason that belongs to its code.
 */
function fromConnectError(error: ConnectError, requestId: string): ConnectError {
  if (reasonOf(error) !== undefined) {
    // Details that came over a link are already encoded; they travel on as they are.
    return new ConnectError(error.rawMessage, error.code, undefined, error.details as never, error);
  }
  if (isUnreadable(error)) return own(Code.InvalidArgument, "BODY_MALFORMED", error.rawMessage, error, requestId);
  switch (error.code) {
    case Code.DeadlineExceeded:
      return own(error.code, "DEADLINE", DEADLINE_MESSAGE, error, requestId);
    case Code.Canceled:
      return own(error.code, "CLIENT_CANCELLED", CANCELLED_MESSAGE, error, requestId);
    case Code.Unavailable:
      return fromAppError(
        new AppError({
          code: error.code,
          reason: "DEPENDENCY_DOWN",
          message: "A service that is needed for this call cannot be reached at the moment.",
          retryAfterMs: 1000,
          cause: error,
        }),
        requestId,
      );
    case Code.InvalidArgument:
      return own(error.code, "BODY_MALFORMED", error.rawMessage, error, requestId);
    case Code.ResourceExhausted:
      return own(error.code, "PAYLOAD_TOO_LARGE", "The message is larger than this server accepts.", error, requestId);
    case Code.Unimplemented:
      return own(error.code, "FEATURE_DISABLED", "This server does not offer that method.", error, requestId);
    default:
      return internal(error, requestId);
  }
}

function own(code: Code, reason: Reason, message: string, cause: unknown, requestId: string): ConnectError {
  return fromAppError(new AppError({ code, reason, message, cause }), requestId);
}

function internal(cause: unknown, requestId: string): ConnectError {
  const message = `Internal error. Quote request id ${requestId} when you report it.`;
  const error = new ConnectError(message, Code.Internal, undefined, [
    infoDetail("INTERNAL", {}),
    requestDetail(requestId),
  ]);
  error.cause = cause;
  return error;
}

function infoDetail(reason: Reason, facts: Readonly<Record<string, string>>): Detail {
  return {
    desc: ErrorInfoSchema,
    value: { reason, domain: ERROR_DOMAIN, metadata: { ...facts } } as MessageInitShape<DescMessage>,
  };
}

function requestDetail(requestId: string): Detail {
  return { desc: RequestInfoSchema, value: { requestId } as MessageInitShape<DescMessage> };
}
