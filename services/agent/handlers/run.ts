import { timestampDate, timestampNow } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type AgentEvent, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { RunService, StreamRunEventsRequest } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { callOf } from "#platform/rpc/call.ts";
import { openPage, pageSize, sealPage } from "#platform/rpc/paging.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import type { Cursor } from "../domain/cursor.ts";
import { parseRunInput } from "../domain/run-input.ts";
import { runToProto } from "../proto-mapping.ts";
import { isTerminal } from "../runs/event-envelope.ts";
import type { Runs } from "../runs/runs.ts";
import type { WatchFrame } from "../runs/watch.ts";

export function runHandler(runs: Runs, tokens: PageTokens): ServiceImpl<typeof RunService> {
  return {
    async startRun(request, context) {
      const { run, fresh } = await runs.open(callOf(context), parseRunInput(request));
      fresh?.subscription[Symbol.dispose]();
      return {
        run: { ...runToProto(run), lastSeq: fresh?.seq ?? run.last_seq },
        appliedThroughSeq: fresh?.seq ?? run.last_seq,
      };
    },

    async getRun({ runId }, context) {
      return { run: runToProto(await runs.get(callOf(context), runId)) };
    },

    async listRuns(request, context) {
      const call = callOf(context);
      const { sessionId, agentId, state, createdAfter, createdBefore } = request;
      const filter = {
        sessionId: sessionId || undefined,
        agentId: agentId || undefined,
        state: state || undefined,
        createdAfter: createdAfter && timestampDate(createdAfter),
        createdBefore: createdBefore && timestampDate(createdBefore),
      };
      const scope = {
        call,
        list: "runs",
        filter: {
          ...filter,
          createdAfter: filter.createdAfter?.toISOString(),
          createdBefore: filter.createdBefore?.toISOString(),
        },
      };
      const limit = pageSize(request.pageSize);
      const rows = await runs.list(call, filter, {
        limit: limit + 1,
        after: openPage<Cursor>(tokens, request.pageToken, scope),
      });
      const last = rows[limit - 1];
      return {
        runs: rows.slice(0, limit).map(runToProto),
        nextPageToken:
          rows.length > limit && last !== undefined
            ? sealPage(tokens, { time: last.sort_time, id: last.run_id }, scope)
            : "",
      };
    },

    async cancelRun({ runId }, context) {
      const run = await runs.cancel(callOf(context), runId, "caller");
      return { run: runToProto(run), appliedThroughSeq: run.last_seq };
    },

    async listRunEvents(request, context) {
      const call = callOf(context);
      const scope = { call, list: "run_events", filter: { runId: request.runId, afterSeq: String(request.afterSeq) } };
      const limit = pageSize(request.pageSize);
      const cursor = openPage<{ seq: string }>(tokens, request.pageToken, scope);
      const events = await runs.events(
        call,
        request.runId,
        cursor === undefined ? request.afterSeq : BigInt(cursor.seq),
        limit + 1,
      );
      const last = events[limit - 1];
      return {
        events: events.slice(0, limit),
        nextPageToken:
          events.length > limit && last !== undefined ? sealPage(tokens, { seq: String(last.seq) }, scope) : "",
      };
    },

    async *streamRunEvents(request, context) {
      const { runId, afterSeq, liveOnly } = request;
      for await (const frame of runs.watch(callOf(context), { runId, afterSeq, liveOnly })) {
        const shown = streamFrame(frame, request);
        if (shown !== undefined) yield { frame: shown };
      }
    },
  };
}

function streamFrame(frame: WatchFrame, request: StreamRunEventsRequest) {
  switch (frame.kind) {
    case "event":
      return wanted(frame.event, request) ? { case: "event" as const, value: frame.event } : undefined;
    case "caught_up":
      return { case: "caughtUp" as const, value: { seq: frame.seq } };
    case "open_items":
      return request.omitTransient ? undefined : { case: "openItems" as const, value: frame.open };
    case "heartbeat":
      return { case: "heartbeat" as const, value: { time: timestampNow() } };
  }
}

function wanted(event: AgentEvent, { types, omitTransient }: StreamRunEventsRequest): boolean {
  if (isTerminal(event)) return true;
  if (omitTransient && event.retention === Retention.TRANSIENT) return false;
  return types.length === 0 || types.includes(event.type);
}
