import { fromBinary } from "@bufbuild/protobuf";
import type { Code, HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { UsageSummarySchema } from "#gen/agentmesh/common/v1/usage_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { type Call, callOf, withSignal } from "#platform/rpc/call.ts";
import { AppError } from "#platform/rpc/errors.ts";
import type { Reason } from "#platform/rpc/reasons.ts";
import { parseRunInput } from "../domain/run-input.ts";
import { ChatProjection, failureOf } from "../runs/chat-projection.ts";
import { isTerminal } from "../runs/event-envelope.ts";
import type { OpenedRun, Runs } from "../runs/runs.ts";

/** Longest wait of Chat for its answer; then it answers with the run's state, RUNNING or QUEUED, and its id. */
const CHAT_WAIT_MS = 10 * 60_000;
/** Kept back from the caller's deadline, so that the answer without an end still reaches it. */
const ANSWER_MARGIN_MS = 500;
/** Time for the cancellation of a run whose caller has left. */
const LEAVE_MS = 30_000;

export function chatHandler(runs: Runs): ServiceImpl<typeof ChatService> {
  return {
    async chat(request, context) {
      const call = callOf(context);
      using opened = await runs.open(call, parseRunInput(request));
      tellRun(context, opened);
      await ended(runs, call, opened, request.cancelOnDisconnect);
      return chatResponse(runs, call, opened);
    },

    async *chatStream(request, context) {
      const call = callOf(context);
      using opened = await runs.open(call, parseRunInput(request));
      tellRun(context, opened);
      const { run_id: runId } = opened.run;
      const view = new ChatProjection({ runId, sessionId: opened.sessionId, asOf: opened.run.last_seq });
      // Of a run that the message has joined the stream shows what comes from there on.
      const afterSeq = opened.joined?.afterSeq ?? 0n;
      let over = false;
      try {
        for await (const frame of runs.watch(call, { runId, fresh: opened.fresh, afterSeq })) {
          if (frame.kind === "open_items") for (const event of view.opened(frame.open)) yield { event };
          if (frame.kind !== "event") continue;
          over = isTerminal(frame.event);
          for (const event of view.of(frame.event)) {
            yield { event };
            // A run that waits has not ended, but this stream has.
            over ||= event.payload?.case === "final";
          }
          if (over) return;
        }
      } finally {
        if (!over && request.cancelOnDisconnect) leave(runs, call, runId);
      }
    },
  };
}

/** Where the run can be watched again; a client that loses the stream before its first event needs it. */
function tellRun(context: HandlerContext, { run }: OpenedRun): void {
  context.responseHeader.set("location", `/api/v1/runs/${run.run_id}/events:stream`);
}

/** Waits until the run has ended or waits itself, or until the longest wait is over. */
async function ended(runs: Runs, call: Call, opened: OpenedRun, cancelOnDisconnect: boolean): Promise<void> {
  const remaining = (call.deadline ?? Number.POSITIVE_INFINITY) - Date.now() - ANSWER_MARGIN_MS;
  const patience = AbortSignal.timeout(Math.max(1, Math.min(CHAT_WAIT_MS, remaining)));
  const waiting = withSignal(call, AbortSignal.any([call.signal, patience]));
  const { run, fresh } = opened;
  try {
    if (run.state === RunState.SUSPENDED) return;
    // Of a run that an earlier call began only what is to come is of interest.
    const watched = { runId: run.run_id, afterSeq: run.last_seq, fresh, wants: isSuspension };
    for await (const frame of runs.watch(waiting, watched)) {
      if (frame.kind !== "event" || !isSuspension(frame.event)) continue;
      // It may have gone on since.
      if ((await runs.get(waiting, run.run_id)).state === RunState.SUSPENDED) return;
    }
  } catch (error) {
    if (cancelOnDisconnect) leave(runs, call, run.run_id);
    if (!patience.aborted || call.signal.aborted) throw error;
  }
}

function isSuspension({ payload }: AgentEvent): boolean {
  return payload.case === "runSuspended";
}

/** Cancels the run of a caller who has left, without the signal that said so. A stream that broke here is no leaving. */
function leave(runs: Runs, call: Call, runId: string): void {
  if (!call.signal.aborted) return;
  runs.cancel(withSignal(call, AbortSignal.timeout(LEAVE_MS)), runId, "disconnect").catch(() => {});
}

async function chatResponse(runs: Runs, call: Call, opened: OpenedRun) {
  const run = await runs.get(call, opened.run.run_id);
  const { sessionId } = opened;
  if (run.state === RunState.FAILED && run.error !== null) {
    const status = fromBinary(StatusSchema, run.error);
    const { reason, message, facts } = failureOf(status);
    throw new AppError({
      code: status.code as Code,
      reason: reason as Reason,
      message,
      facts: { ...facts, run_id: run.run_id, session_id: sessionId },
    });
  }
  return {
    response: run.response,
    sessionId,
    runId: run.run_id,
    state: run.state,
    outcome: run.outcome,
    ...(run.state === RunState.SUSPENDED && (await runs.pending(call, run))),
    ...(run.usage === null ? {} : { usage: fromBinary(UsageSummarySchema, run.usage) }),
  };
}
