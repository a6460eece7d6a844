import { Code } from "@connectrpc/connect";
import { AppError, dependencyDown, invalidFields } from "#platform/rpc/errors.ts";

/** The session has a run in progress, and the caller is told which. */
export function sessionBusy(runId: string): AppError {
  return new AppError({
    code: Code.Aborted,
    reason: "SESSION_BUSY",
    message: "The session has a run in progress. Wait for it, watch it, or cancel it first.",
    facts: { run_id: runId },
    retryAfterMs: 1000,
  });
}

/** A run is not retried; `facts` say why: its state, a newer run of its session, or what is not stored any more. */
export function runNotRetryable(facts: { state: string; newer_run_id?: string; missing?: string }): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "RUN_NOT_RETRYABLE",
    message: "Only a run that has failed, is the newest of its session, and is stored whole can be retried.",
    facts,
  });
}

/** Nothing can be sent to a run that has ended, or has not begun. */
export function runNotActive(state: string): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "RUN_NOT_ACTIVE",
    message: "The run is not in progress. Send the message as a turn of its own.",
    facts: { state },
  });
}

/** As many messages wait to be taken in by the run as may wait. */
export function inputsFull(limit: number): AppError {
  return new AppError({
    code: Code.ResourceExhausted,
    reason: "CONCURRENCY_LIMIT",
    message: `${limit} messages wait to be taken in by the run. Try again when it has come to its next turn.`,
    facts: { scope: "run", limit: String(limit) },
    retryAfterMs: 1000,
  });
}

export function cursorAhead(afterSeq: bigint): AppError {
  return new AppError({
    code: Code.OutOfRange,
    reason: "EVENT_CURSOR_AHEAD",
    message: "after_seq is above every number that this run can have used. Is it of another run?",
    facts: { after_seq: String(afterSeq) },
  });
}

/** A stream is sent to another replica. */
export function draining(): AppError {
  return new AppError({
    code: Code.Unavailable,
    reason: "STREAM_DRAINING",
    message: "This server is shutting down. Reconnect with after_seq.",
    retryAfterMs: 100,
  });
}

/** A new run is sent to another replica. */
export function shuttingDown(): AppError {
  return new AppError({
    code: Code.Unavailable,
    reason: "STREAM_DRAINING",
    message: "This server is shutting down and begins nothing new. Try again.",
    retryAfterMs: 100,
  });
}

/** As many runs as there may be at the same time are at work, and as many as may wait are waiting. */
export function poolFull(scope: "tenant" | "server", retryAfterMs: number): AppError {
  const whose = scope === "tenant" ? "Your tenant has" : "The server has";
  return new AppError({
    code: Code.ResourceExhausted,
    reason: "CONCURRENCY_LIMIT",
    message: `${whose} as many runs at work and waiting as are allowed at the same time. Try again later.`,
    facts: { scope },
    retryAfterMs,
  });
}

/** As many of the tenant's runs are queued as may be. */
export function sessionQueueFull(limit: number): AppError {
  return new AppError({
    code: Code.ResourceExhausted,
    reason: "CONCURRENCY_LIMIT",
    message: `${limit} turns wait for this session, which is as many as may wait. Try again later.`,
    facts: { scope: "session", limit: String(limit) },
    retryAfterMs: 5_000,
  });
}

export function queueFull(limit: number): AppError {
  return new AppError({
    code: Code.ResourceExhausted,
    reason: "CONCURRENCY_LIMIT",
    message: `Your tenant has ${limit} runs in the queue, which is as many as there may be. Try again later.`,
    facts: { scope: "queue", limit: String(limit) },
    retryAfterMs: 10_000,
  });
}

/** The tenant's input guard has refused a message; what it found is in the audit, and not told to who tries. */
export function inputRefused(): AppError {
  return new AppError({
    code: Code.PermissionDenied,
    reason: "POLICY_DENIED",
    message: "The message was refused: it looks like an attempt to change what the agent was told to do.",
    facts: { policy: "input_guard" },
  });
}

/** The credential may not decide an approval: the run works for it (`own_run`), or for its user where another is needed (`own_user`). */
export function approverNotAllowed(cause: "own_run" | "own_user"): AppError {
  return new AppError({
    code: Code.PermissionDenied,
    reason: "APPROVER_NOT_ALLOWED",
    message:
      "Somebody else has to decide this: not the credential that the run works for, nor its user where two are needed.",
    facts: { cause },
  });
}

/** An approval was decided otherwise before. */
export function approvalAlreadyResolved(state: string): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "APPROVAL_ALREADY_RESOLVED",
    message: "The approval was decided before, and otherwise. Read it again.",
    facts: { state },
  });
}

/** A decision came too late. */
export function approvalExpired(): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "APPROVAL_EXPIRED",
    message: "The approval's time was over before it was decided, which counts as a denial.",
  });
}

/** A result was handed in for a call that the run never waited for. */
export function unknownClientCall(i: number): AppError {
  return invalidFields({
    field: `results[${i}].call_id`,
    description: "is no call that the run's caller is to execute",
  });
}

/** Two results for one call: this one, and one that was handed in before or stands in front of it. */
export function otherClientResult(i: number): AppError {
  return new AppError({
    code: Code.InvalidArgument,
    reason: "FIELD_CONFLICT",
    message: "The call has another result already.",
    violations: [{ field: `results[${i}]`, description: "the call has another result already" }],
  });
}

/** A result that comes too late: its time was over, or the run has ended. */
export function clientCallOver(callId: string): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "RUN_NOT_ACTIVE",
    message: "The run does not wait for this call any more.",
    facts: { call_id: callId },
  });
}

/** The owner of a run could not be asked to cancel it, and it has not lost the run in time. */
export function ownerUnreachable(): AppError {
  return dependencyDown("the replica that works on the run");
}

/** A run's end was refused because a message was sent to it before. Never shown: the run takes it in, and goes on or ends with it. */
export class InputsPending extends Error {
  override readonly name = "InputsPending";
}

/** A write was refused because another process owns the run now. Never shown: the loser just stops. */
export class LeaseLost extends Error {
  override readonly name = "LeaseLost";

  constructor(runId: string) {
    super(`the lease of ${runId} is lost`);
  }
}
