import { Code, ConnectError } from "@connectrpc/connect";
import { RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { AppError, dependencyDown, factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Reason } from "#platform/rpc/reasons.ts";
import { ModelError } from "../llm/model-error.ts";
import { failure, internalFailure, type RunEnd } from "./run-end.ts";

/** Why a run's work is ended from outside. */
export class CancelRequest extends Error {
  override readonly name = "CancelRequest";
  /** For the run_cancelled event: "caller", "disconnect", "session_deleted" or "shutdown". */
  readonly why: string;

  constructor(why: string) {
    super(`cancelled: ${why}`);
    this.why = why;
  }
}

/** A run's work is ended because it has lasted too long. */
export class RunTimeout extends Error {
  override readonly name = "RunTimeout";
}

/** A run's work is ended because what it does cannot be written down; the cause says why. */
export class LogBroken extends Error {
  override readonly name = "LogBroken";
}

/** How a run ends whose work threw `error`; the signal of the work, when it had aborted, says more than the error. */
export function endOf(error: unknown, signal: AbortSignal): RunEnd {
  if (signal.aborted) {
    const reason: unknown = signal.reason;
    if (reason instanceof LogBroken) return failureOf(whyNotWritten(reason.cause));
    if (!(reason instanceof RunTimeout)) {
      return { kind: "cancelled", cause: reason instanceof CancelRequest ? reason.why : "caller" };
    }
    return timedOut();
  }
  return failureOf(error);
}

/** Writing has no deadline that a caller has set: where the database did not answer in time, it was away. */
function whyNotWritten(cause: unknown): unknown {
  return reasonOf(cause) === "DEADLINE" ? dependencyDown("postgres", cause) : cause;
}

function failureOf(error: unknown): RunEnd {
  if (error instanceof ModelError) return modelFailure(error);
  // What another service refused or could not do, in its own words.
  if (error instanceof AppError) return refusal(error.code, error, error.message);
  if (error instanceof ConnectError && reasonOf(error) !== undefined)
    return refusal(error.code, error, error.rawMessage);
  return internalFailure();
}

/** The end of a run whose time is over. */
export function timedOut(): RunEnd {
  return failure(Code.DeadlineExceeded, "RUN_TIMEOUT", "The run reached its time limit.", RetryAdvice.TERMINAL);
}

/** True for what may go by: whoever tries again later may succeed. */
export function isPassing(error: unknown): boolean {
  return (error instanceof AppError || error instanceof ConnectError) && PASSING.has(error.code);
}

function refusal(code: Code, error: Error, message: string): RunEnd {
  return failure(code, reasonOf(error) as Reason, message, adviceFor(code), { ...factsOf(error) });
}

function modelFailure(error: ModelError): RunEnd {
  const busy = error.kind === "overloaded" || error.kind === "rate_limited";
  const tooLong = error.kind === "context_overflow";
  const reason: Reason = tooLong ? "CONTEXT_TOO_LONG" : busy ? "MODEL_OVERLOADED" : "MODEL_FAILED";
  const advice = error.retryable ? RetryAdvice.EXHAUSTED : RetryAdvice.TERMINAL;
  const message = `The model could not answer: ${error.message}`;
  return failure(tooLong ? Code.FailedPrecondition : Code.Unavailable, reason, message, advice, { kind: error.kind });
}

const PASSING: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Aborted,
  Code.DeadlineExceeded,
  Code.ResourceExhausted,
]);

function adviceFor(code: Code): RetryAdvice {
  return PASSING.has(code) ? RetryAdvice.EXHAUSTED : RetryAdvice.TERMINAL;
}
