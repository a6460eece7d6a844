import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunOutcome, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { type UsageSummary, UsageSummarySchema } from "#gen/agentmesh/common/v1/usage_pb.ts";
import { RunEndedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { type ErrorInfo, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { type Status, StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { newId } from "#platform/id.ts";
import { failpoint } from "#platform/process/failpoint.ts";
import type { Call } from "#platform/rpc/call.ts";
import { ERROR_DOMAIN, type Reason } from "#platform/rpc/reasons.ts";
import type { RunRow } from "../store/run-store.ts";
import type { RunEndWrite } from "../store/run-writes.ts";
import type { EventBody, RunIds } from "./event-envelope.ts";
import { settleUsage } from "./late-bookings.ts";
import type { DurableEntry, RunLog } from "./run-log.ts";
import { workSubject } from "./run-subject.ts";

/** How a run ends: exactly one of these becomes its terminal event. */
export type RunEnd =
  | { kind: "completed"; outcome: RunOutcome; response: string }
  | { kind: "failed"; error: Status; retry: RetryAdvice }
  | { kind: "cancelled"; cause: string };

/** A failure with its machine-readable reason, as `run_failed` carries it. */
export function failure(
  code: Code,
  reason: Reason,
  message: string,
  retry: RetryAdvice,
  facts: Record<string, string> = {},
): RunEnd {
  const info = create(ErrorInfoSchema, { reason, domain: ERROR_DOMAIN, metadata: facts });
  const error = create(StatusSchema, { code, message, details: [anyPack(ErrorInfoSchema, info)] });
  return { kind: "failed", error, retry };
}

/** The end of a run that failed for a reason inside the server; the log tells which. */
export function internalFailure(): RunEnd {
  const message = "The run failed for a reason inside the server.";
  return failure(Code.Internal, "INTERNAL", message, RetryAdvice.EXHAUSTED);
}

/** The end of a run whose owner died or lost its lease. */
export function ownerLost(): RunEnd {
  return failure(
    Code.Aborted,
    "OWNER_LOST",
    "The process that worked on this run is gone. What was completed is stored; send the message again to continue.",
    RetryAdvice.EXHAUSTED,
  );
}

/** The end of a run whose owners died one after the other. */
export function poisoned(attempts: number): RunEnd {
  const message = "Each process that worked on this run was lost. It is not taken up again.";
  return failure(Code.Aborted, "RUN_POISONED", message, RetryAdvice.TERMINAL, { attempts: String(attempts) });
}

/** What belongs to every end. */
export interface EndContext {
  usage: UsageSummary;
  /** Who the run worked for, for the audit row. */
  call: Call;
  durationMs?: number | undefined;
  /** Other owners have worked on it, and may book late: what it has used is summed up as it is written. */
  shared?: boolean;
  /** The run, as far as its end is told to others. */
  run: Pick<RunRow, "background" | "end_user_id" | "state">;
}

/**
 * Writes the end of a run: the terminal event, the run's state, the session's freedom and the audit row, in one
 * statement under the fence. False when it was not written because a message was sent to the run before: the run goes on
 * with it, or ends with it (`finishWithInputs`). Throws when it could not be written.
 */
export async function finishRun(log: RunLog, end: RunEnd, context: EndContext): Promise<boolean> {
  log.append(endEntry(log.ids, end, context));
  failpoint("run-end.before-flush");
  await log.flush();
  return !log.takeRefusal();
}

/** The terminal event and what is written with it. */
export function endEntry(
  ids: RunIds,
  end: RunEnd,
  { usage, call, durationMs, run, shared = false }: EndContext,
): DurableEntry & { body: EventBody; end: RunEndWrite } {
  const response = end.kind === "completed" ? end.response : "";
  return {
    body: terminalBody(end, usage),
    openStep: 0,
    within: shared ? (tx) => settleUsage(tx, ids.runId) : undefined,
    // Calls that were asked for, and have perhaps taken effect, are what a retry goes on with.
    keepsDraft: end.kind === "failed",
    end: {
      row: {
        state: STATES[end.kind],
        outcome: end.kind === "completed" ? end.outcome : 0,
        error: end.kind === "failed" ? toBinary(StatusSchema, end.error) : null,
        usage: toBinary(UsageSummarySchema, usage),
        // The one character that Postgres cannot keep in text.
        response: response.replaceAll("\0", "\ufffd"),
      },
      call,
      audited: {
        type: `run.${end.kind}`,
        resource: ids.runId,
        sessionId: ids.sessionId,
        details: auditDetails(end, usage),
        resultLength: response.length,
        durationMs,
      },
      ...(run.background && { announced: announcement(ids, end, call.principal.tenantId, run.end_user_id) }),
      // What a background run was to do is kept until it has ended, for its dead letter.
      ...((run.background || run.state === RunState.QUEUED) && leaving(ids, end, call.principal.tenantId)),
    },
  };
}

/** The run's place in the queue goes with it, or becomes a dead letter. */
function leaving({ runId }: RunIds, end: RunEnd, tenantId: string): Pick<RunEndWrite, "dead" | "leavesQueue"> {
  const reason = reasonFor(end);
  if (end.kind !== "failed" || reason !== "RUN_POISONED") return { leavesQueue: true };
  return { dead: { subject: workSubject(tenantId, runId), reason, message: end.error.message } };
}

function announcement({ runId, sessionId, agentId }: RunIds, end: RunEnd, tenantId: string, endUserId: string) {
  const ended = { tenantId, runId, sessionId, agentId, endUserId, state: end.kind, reason: reasonFor(end) };
  return {
    eventId: newId("evt"),
    subject: `agentmesh.run_ended.v1.${tenantId}`,
    payload: toBinary(RunEndedSchema, create(RunEndedSchema, ended)),
  };
}

function reasonFor(end: RunEnd): string {
  return end.kind === "failed" ? (infoIn(end.error)?.reason ?? "") : "";
}

function auditDetails(end: RunEnd, usage: UsageSummary): object {
  const total_tokens = Number(usage.totalTokens);
  switch (end.kind) {
    case "completed":
      return { outcome: OUTCOMES.get(end.outcome) ?? "", total_tokens };
    case "failed":
      return { reason: reasonFor(end), total_tokens };
    case "cancelled":
      return { cause: end.cause, total_tokens };
  }
}

/** Reason and facts inside a run's error. */
export function infoIn(error: Status | undefined): ErrorInfo | undefined {
  return error?.details.map((detail) => anyUnpack(detail, ErrorInfoSchema)).find((one) => one !== undefined);
}

const OUTCOMES: ReadonlyMap<number, string> = new Map(Object.entries(RunOutcome).map(([name, n]) => [n, name]));

const STATES = { completed: RunState.COMPLETED, failed: RunState.FAILED, cancelled: RunState.CANCELLED } as const;

type UsageInit = MessageInitShape<typeof UsageSummarySchema>;

function terminalBody(end: RunEnd, usage: UsageInit): EventBody {
  switch (end.kind) {
    case "completed":
      return {
        payload: { case: "runCompleted", value: { outcome: end.outcome, response: end.response, usage } },
      };
    case "failed":
      return { payload: { case: "runFailed", value: { error: end.error, retry: end.retry, usage } } };
    case "cancelled":
      return { payload: { case: "runCancelled", value: { cause: end.cause, usage } } };
  }
}
