import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { request } from "undici";
import {
  RunService,
  StartRunRequestSchema,
  StartRunResponseSchema,
  StreamRunEventsRequestSchema,
  type StreamRunEventsResponse,
  StreamRunEventsResponseSchema,
} from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import type { Service } from "../processes.ts";
import { TurnFailed } from "./caller.ts";
import { Envelopes } from "./envelopes.ts";
import { createAgent } from "./http-stream.ts";
import { envelope } from "./request.ts";

type Frame = StreamRunEventsResponse["frame"];

/** Runs that are begun and watched by two calls, over Connect. */
export interface RunCaller extends AsyncDisposable {
  /** Begins a run, or puts it into the queue; returns its id once it is acknowledged. */
  start(message: string, background?: boolean): Promise<string>;
  /** Reads a run's events after a number until the stream ends, or until `onFrame` has enough and says so. */
  watch(runId: string, afterSeq: bigint, onFrame: (frame: Frame) => "more" | "enough"): Promise<void>;
  /** As watch, but only counts the frames; about a tenth of the work. */
  count(runId: string, afterSeq: bigint): Promise<number>;
}

export function runCaller({ url, key }: Pick<Service, "url" | "key">): RunCaller {
  const agent = createAgent();
  const authorization = `Bearer ${key}`;
  const post = async (method: string, type: string, body: Uint8Array, signal?: AbortSignal) => {
    const headers = { authorization, "content-type": type, "connect-protocol-version": "1" };
    const path = `${url}/${RunService.typeName}/${method}`;
    const answer = await request(path, { dispatcher: agent, method: "POST", headers, body, signal: signal ?? null });
    if (answer.statusCode !== 200) throw new TurnFailed(`${path}: ${answer.statusCode} ${await answer.body.text()}`);
    return answer.body;
  };
  const stream = async (runId: string, afterSeq: bigint, envelopes: Envelopes, leaving?: AbortController) => {
    const init: MessageInitShape<typeof StreamRunEventsRequestSchema> = { runId, afterSeq };
    const asked = envelope(toBinary(StreamRunEventsRequestSchema, create(StreamRunEventsRequestSchema, init)));
    try {
      const body = await post("StreamRunEvents", "application/connect+proto", asked, leaving?.signal);
      for await (const chunk of body) envelopes.feed(chunk as Buffer);
    } catch (error) {
      if (leaving?.signal.aborted !== true) throw error;
      return;
    }
    if (envelopes.end !== "{}") throw new TurnFailed(`a stream of events ended with ${envelopes.end}`);
  };
  return {
    async start(message, background = false) {
      const asked = toBinary(StartRunRequestSchema, create(StartRunRequestSchema, { message, background }));
      const bytes = await (await post("StartRun", "application/proto", asked)).bytes();
      const { run } = fromBinary(StartRunResponseSchema, bytes);
      if (run === undefined) throw new TurnFailed("no run");
      return run.runId;
    },
    async watch(runId, afterSeq, onFrame) {
      const leaving = new AbortController();
      const envelopes = new Envelopes((content) => {
        if (leaving.signal.aborted) return;
        const { frame } = fromBinary(StreamRunEventsResponseSchema, content);
        if (onFrame(frame) === "enough") leaving.abort();
      });
      await stream(runId, afterSeq, envelopes, leaving);
    },
    async count(runId, afterSeq) {
      const envelopes = new Envelopes();
      await stream(runId, afterSeq, envelopes);
      return envelopes.messages;
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  };
}
