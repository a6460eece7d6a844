import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import type { Reason } from "./reasons.ts";

/** One field of a request and what is wrong with it; `field` is a path in proto names, such as `agent.temperature`. */
export interface FieldViolation {
  field: string;
  description: string;
}

export interface AppErrorInit {
  code: Code;
  reason: Reason;
  /** For people; says what to change; must hold no secret and nothing internal. */
  message: string;
  /** For machines: `ErrorInfo.metadata`, keys in snake_case. */
  facts?: Record<string, string> | undefined;
  violations?: readonly FieldViolation[] | undefined;
  /** How long to wait before trying again: `RetryInfo`, and `Retry-After` on HTTP. */
  retryAfterMs?: number | undefined;
  /** Logged, never sent. */
  cause?: unknown;
}

/** The one error type of domain and stores. It carries a code, a reason and facts; `connect-error.ts` renders it. */
export class AppError extends Error {
  override readonly name = "AppError";
  readonly code: Code;
  readonly reason: Reason;
  readonly facts: Readonly<Record<string, string>>;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;

  constructor(init: AppErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = init.code;
    this.reason = init.reason;
    this.facts = init.facts ?? {};
    this.violations = init.violations ?? [];
    this.retryAfterMs = init.retryAfterMs;
  }
}

/** NOT_FOUND. The same answer for a missing resource, another tenant's and another user's (AIP-193 with our ruling on leaks). */
export function notFound(resourceType: string): AppError {
  return new AppError({
    code: Code.NotFound,
    reason: "RESOURCE_NOT_FOUND",
    message: `No such ${resourceType.replaceAll("_", " ")}.`,
    facts: { resource_type: resourceType },
  });
}

/** INVALID_ARGUMENT for one or more fields. */
export function invalidFields(...violations: FieldViolation[]): AppError {
  return new AppError({
    code: Code.InvalidArgument,
    reason: "FIELD_INVALID",
    message: violations.map(({ field, description }) => `${field}: ${description}`).join("; "),
    violations,
  });
}

/** ABORTED: the caller changed a version that is not the current one (AIP-154). */
export function etagMismatch(): AppError {
  return new AppError({
    code: Code.Aborted,
    reason: "ETAG_MISMATCH",
    message: "The resource has changed since it was read. Read it again and repeat the change.",
  });
}

/** UNAVAILABLE: a backend or another service cannot be reached. */
export function dependencyDown(dependency: string, cause?: unknown, retryAfterMs = 1000): AppError {
  return new AppError({
    code: Code.Unavailable,
    reason: "DEPENDENCY_DOWN",
    message: `${dependency} cannot be reached at the moment.`,
    facts: { dependency },
    retryAfterMs,
    cause,
  });
}

/** The machine-readable reason of an error, whether it was thrown here or came over the wire; undefined when it has none. */
export function reasonOf(error: unknown): string | undefined {
  if (error instanceof AppError) return error.reason;
  if (error instanceof ConnectError) return error.findDetails(ErrorInfoSchema)[0]?.reason;
  return undefined;
}

/** The facts of an error (`ErrorInfo.metadata`), whether it was thrown here or came over the wire. */
export function factsOf(error: unknown): Readonly<Record<string, string>> {
  if (error instanceof AppError) return error.facts;
  if (error instanceof ConnectError) return error.findDetails(ErrorInfoSchema)[0]?.metadata ?? {};
  return {};
}

/** Throws; for use in expressions such as `found ?? raise(notFound("session"))`. */
export function raise(error: Error): never {
  throw error;
}
