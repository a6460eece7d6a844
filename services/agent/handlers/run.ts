import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampNow } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type AgentEvent, Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import {
  type ListRunsRequest,
  type RunService,
  RunSnapshotSchema,
  type StreamRunEventsRequest,
} from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { callOf } from "#platform/rpc/call.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import { openPage, pageSize, sealPage } from "#platform/rpc/paging.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import type { ClientResults } from "../approvals/client-results.ts";
import type { Cursor } from "../domain/cursor.ts";
import { parseRunInput, parseSaid } from "../domain/run-input.ts";
import { deadLetterToProto, runToProto } from "../proto-mapping.ts";
import type { DeadLetters } from "../queue/dead-letters.ts";
import type { Runs } from "../runs/runs.ts";
import type { WatchFrame } from "../runs/watch.ts";

/** What the handler hands on to. */
export interface RunRooms {
  runs: Runs;
  deadLetters: DeadLetters;
  results: ClientResults;
}

export function runHandler(
  { runs, deadLetters, results }: RunRooms,
  tokens: PageTokens,
): ServiceImpl<typeof RunService> {
  return {
    async startRun(request, context) {
      const call = callOf(context);
      const input = parseRunInput(request);
      if (input.background === true) {
        const queued = await runs.enqueue(call, input);
        return { run: runToProto(queued), appliedThroughSeq: queued.last_seq };
      }
      using opened = await runs.open(call, input);
      const inputMessageId = opened.joined?.messageId ?? "";
      return { run: runToProto(opened.run), appliedThroughSeq: opened.run.last_seq, inputMessageId };
    },

    async getRun({ runId }, context) {
      return { run: runToProto(await runs.get(callOf(context), runId)) };
    },

    async listRuns(request, context) {
      const call = callOf(context);
      const filter = runFilter(request);
      const { createdAfter, createdBefore } = filter;
      const times = { createdAfter: createdAfter?.toISOString(), createdBefore: createdBefore?.toISOString() };
      const scope = { call, list: "runs", filter: { ...filter, ...times } };
      const limit = pageSize(request.pageSize);
      const after = openPage<Cursor>(tokens, request.pageToken, scope);
      const rows = await runs.list(call, filter, { limit: limit + 1, after });
      const last = rows[limit - 1];
      const more = rows.length > limit && last !== undefined;
      return {
        runs: rows.slice(0, limit).map(runToProto),
        nextPageToken: more ? sealPage(tokens, { time: last.sort_time, id: last.run_id }, scope) : "",
      };
    },

    async cancelRun({ runId, requestId }, context) {
      const run = await runs.cancel(callOf(context), runId, "caller", requestId);
      return { run: runToProto(run), appliedThroughSeq: run.last_seq };
    },

    async submitToolResults(request, context) {
      const run = await results.submit(callOf(context), request);
      return { run: runToProto(run), appliedThroughSeq: run.last_seq };
    },

    async retryRun({ runId, requestId }, context) {
      return { run: runToProto(await runs.retry(callOf(context), runId, requestId)) };
    },

    async sendRunInput(request, context) {
      const { runId, requestId } = request;
      const { message, attachments } = parseSaid(request);
      const { run, messageId } = await runs.send(callOf(context), { runId, message, attachments, requestId });
      return { run: runToProto(run), messageId };
    },

    async listRunEvents({ runId, afterSeq, pageSize: asked, pageToken }, context) {
      const call = callOf(context);
      const scope = { call, list: "run_events", filter: { runId, afterSeq: String(afterSeq) } };
      const limit = pageSize(asked);
      const cursor = openPage<{ seq: string }>(tokens, pageToken, scope);
      const from = cursor ? BigInt(cursor.seq) : afterSeq;
      const { events, snapshot } = await runs.events(call, runId, from, limit + 1);
      const last = events[limit - 1];
      const more = events.length > limit && last !== undefined;
      return {
        events: events.slice(0, limit),
        nextPageToken: more ? sealPage(tokens, { seq: String(last.seq) }, scope) : "",
        ...(snapshot !== undefined && { snapshot }),
      };
    },

    async listDeadLetters({ pageSize: asked, pageToken, openOnly }, context) {
      const call = callOf(context);
      const scope = { call, list: "dead_letters", filter: { openOnly } };
      const limit = pageSize(asked);
      const after = openPage<Cursor>(tokens, pageToken, scope);
      const rows = await deadLetters.list(call, openOnly, { limit: limit + 1, after });
      const last = rows[limit - 1];
      const more = rows.length > limit && last !== undefined;
      return {
        deadLetters: rows.slice(0, limit).map(deadLetterToProto),
        nextPageToken: more ? sealPage(tokens, { time: last.sort_time, id: last.run_id }, scope) : "",
      };
    },

    async redriveDeadLetter({ runId, requestId }, context) {
      return { run: runToProto(await deadLetters.redrive(callOf(context), runId, requestId)) };
    },

    streamRunEvents(request, context) {
      const { runId, afterSeq, liveOnly } = request;
      const frames = runs.watch(callOf(context), { runId, afterSeq, liveOnly, wants: wantedBy(request) });
      return shownOf(frames, (frame) => {
        const shown = streamFrame(frame, request);
        return shown === undefined ? undefined : { frame: shown };
      });
    },
  };
}

/** What is shown of frames, one step for each: a generator here would be one more for every open stream. */
function shownOf<T, U>(frames: AsyncGenerator<T>, show: (frame: T) => U | undefined): AsyncIterable<U> {
  const next = (): Promise<IteratorResult<U, undefined>> => frames.next().then(step);
  const step = (result: IteratorResult<T>): IteratorResult<U, undefined> | Promise<IteratorResult<U, undefined>> => {
    if (result.done === true) return { done: true, value: undefined };
    const value = show(result.value);
    return value === undefined ? next() : { done: false, value };
  };
  const end = async (): Promise<IteratorResult<U, undefined>> => {
    await frames.return(undefined);
    return { done: true, value: undefined };
  };
  const iterator: AsyncIterator<U, undefined> = { next, return: end };
  return { [Symbol.asyncIterator]: () => iterator };
}

function runFilter({ sessionId, agentId, state, createdAfter, createdBefore }: ListRunsRequest) {
  return {
    sessionId: sessionId || undefined,
    agentId: agentId || undefined,
    state: state || undefined,
    createdAfter: createdAfter && dateOf("created_after", createdAfter),
    createdBefore: createdBefore && dateOf("created_before", createdBefore),
  };
}

/** google.protobuf.Timestamp: from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z. */
const FIRST_SECOND = -62_135_596_800n;
const LAST_SECOND = 253_402_300_799n;

function dateOf(field: string, time: Timestamp): Date {
  const { seconds, nanos } = time;
  if (seconds < FIRST_SECOND || seconds > LAST_SECOND || nanos < 0 || nanos > 999_999_999) {
    throw invalidFields({ field, description: "is not a time between the years 1 and 9999" });
  }
  return timestampDate(time);
}

function streamFrame(frame: WatchFrame, request: StreamRunEventsRequest) {
  switch (frame.kind) {
    case "snapshot":
      return { case: "snapshot" as const, value: create(RunSnapshotSchema, frame.snapshot) };
    case "event":
      return { case: "event" as const, value: frame.event };
    case "caught_up":
      return { case: "caughtUp" as const, value: { seq: frame.seq } };
    case "open_items":
      return showsDeltas(request) ? { case: "openItems" as const, value: frame.open } : undefined;
    case "heartbeat":
      return { case: "heartbeat" as const, value: { time: timestampNow() } };
  }
}

/** Which events a reader wants; undefined for all of them. */
function wantedBy({ types, omitTransient }: StreamRunEventsRequest): ((event: AgentEvent) => boolean) | undefined {
  if (!omitTransient && types.length === 0) return undefined;
  const chosen = new Set(types);
  return ({ retention, type }) =>
    !(omitTransient && retention === Retention.TRANSIENT) && (chosen.size === 0 || chosen.has(type));
}

const DELTAS = ["text_delta", "reasoning_delta", "tool_call_arguments_delta"];

/** What is open serves those who are shown how it goes on. */
function showsDeltas({ types, omitTransient }: StreamRunEventsRequest): boolean {
  return !omitTransient && (types.length === 0 || DELTAS.some((type) => types.includes(type)));
}
