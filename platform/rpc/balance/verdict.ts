import { Code, ConnectError } from "@connectrpc/connect";
import { reasonOf } from "../errors.ts";

/**
 * What a failed call says of its callee. "answered": the callee is there, whatever it said. "broken": the way to it
 * broke. "late": the deadline passed without a word. "left": the caller left, which says nothing.
 */
export type Verdict = "answered" | "broken" | "late" | "left";

/** What carriers say when the way to the callee breaks: refused, reset, closed, or an answer that is none. */
const BROKEN: ReadonlySet<Code> = new Set([Code.Canceled, Code.Aborted, Code.Unavailable, Code.Internal, Code.Unknown]);

/** An error with details of ours was written by the callee; one without was made by the carrier. */
export function verdictOf(error: unknown, signal: AbortSignal | undefined): Verdict {
  if (signal?.aborted) return isDeadline(signal.reason) ? "late" : "left";
  if (!(error instanceof ConnectError) || reasonOf(error) !== undefined) return "answered";
  if (isDeadline(error)) return "late";
  return BROKEN.has(error.code) ? "broken" : "answered";
}

function isDeadline(error: unknown): boolean {
  return error instanceof ConnectError && error.code === Code.DeadlineExceeded;
}
