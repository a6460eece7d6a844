import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";

export function sessionBusy(runId: string): AppError {
  return new AppError({
    code: Code.Aborted,
    reason: "SESSION_BUSY",
    message: "The session has a run in progress. Wait for it, watch it, or cancel it first.",
    facts: { run_id: runId },
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

export function slowConsumer(): AppError {
  return new AppError({
    code: Code.ResourceExhausted,
    reason: "STREAM_SLOW_CONSUMER",
    message: "This stream was read too slowly. Reconnect with after_seq.",
    retryAfterMs: 0,
  });
}

export function draining(): AppError {
  return new AppError({
    code: Code.Unavailable,
    reason: "STREAM_DRAINING",
    message: "This server is shutting down. Reconnect with after_seq.",
    retryAfterMs: 100,
  });
}

/** A write was refused because another process owns the run now. Never shown: the loser just stops. */
export class LeaseLost extends Error {
  override readonly name = "LeaseLost";

  constructor(runId: string) {
    super(`the lease of ${runId} is lost`);
  }
}
