import { Code, ConnectError } from "@connectrpc/connect";
import { RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { AppError, reasonOf } from "#platform/rpc/errors.ts";
import { maskText } from "#platform/telemetry/mask.ts";
import { failure, type RunEnd } from "../runs/run-end.ts";
import { isPassing } from "../runs/run-failure.ts";

const MAX_MESSAGE_CHARACTERS = 500;
/** Failures whose cause is inside the server, and not what was asked of it. */
const INSIDE: ReadonlySet<Code> = new Set([Code.Internal, Code.Unknown, Code.DataLoss]);

/** True when what a run asks for is refused, now and for ever: its agent is gone, its input is not allowed any more. */
export function isRefusal(error: unknown): error is AppError | ConnectError {
  const spoken = error instanceof AppError || (error instanceof ConnectError && reasonOf(error) !== undefined);
  return spoken && !isPassing(error) && !INSIDE.has(error.code);
}

/** The end of a run that could not be begun so many times, for a reason inside the server. */
export function givenUp(error: unknown, attempts: number): RunEnd {
  const last = maskText(
    error instanceof Error ? `${error.name}: ${error.message}` : typeof error,
    MAX_MESSAGE_CHARACTERS,
  );
  return poisonedInQueue(`The run could not be begun. The last try: ${last}`, attempts);
}

/** The end of a run whose every try to begin it was lost with its process. */
export function lostEachTime(attempts: number): RunEnd {
  return poisonedInQueue("Each process that tried to begin the run was lost.", attempts);
}

function poisonedInQueue(message: string, attempts: number): RunEnd {
  return failure(Code.Aborted, "RUN_POISONED", message, RetryAdvice.TERMINAL, { attempts: String(attempts) });
}
