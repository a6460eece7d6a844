import type { Message } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { type Call, onward } from "#platform/rpc/call.ts";
import type { Exchange } from "../../exchange.ts";
import { callStream, one } from "../../pass-through.ts";
import { failureOf } from "../error-body.ts";
import type { MessageWriter } from "../json/write-message.ts";
import type { Route } from "../route.ts";
import { passedHeaders } from "../unary-answer.ts";
import { EventSink, type SinkTimes } from "./event-sink.ts";
import { errorFrame, eventFrame } from "./frame.ts";

export interface EventStream {
  readonly exchange: Exchange;
  readonly route: Route & { readonly kind: "stream" };
  readonly transport: Transport;
  /** The request. */
  readonly message: Message;
  readonly call: Call;
  readonly writer: MessageWriter;
  readonly times: SinkTimes;
}

/**
 * Answers with a method's stream as Server-Sent Events. The headers wait for the first message, so that an error before
 * it keeps its status; but no longer than a heartbeat, since a stream may have nothing to say yet. An error after them
 * becomes one `event: error`. Throws what the call failed with, after it was shown.
 */
export async function streamEvents(stream: EventStream): Promise<void> {
  const { exchange, route, call, writer, times } = stream;
  const sink = new EventSink(exchange, times);
  const requestId = { "x-request-id": call.requestId };
  try {
    const beginning = begin(stream);
    if (!(await within(beginning, times.heartbeatMs))) sink.open(requestId);
    const { header, iterator, first } = await beginning;
    if (!sink.isOpen) sink.open({ ...passedHeaders(header), ...requestId });
    for (let step = first; step.done !== true; step = await iterator.next()) {
      const blocked = sink.write(eventFrame(route.sse, writer, step.value, route.method.output));
      if (blocked !== undefined) await blocked;
    }
  } catch (error) {
    if (sink.isOpen) {
      const failure = failureOf(call.signal.aborted ? call.signal.reason : error, call.requestId, writer);
      // Not waited for: the reader may never take it, and the stream is over in any case.
      void sink.write(errorFrame(route.sse, failure))?.catch(() => {});
    }
    throw error;
  } finally {
    if (sink.isOpen) sink.end();
  }
}

async function begin({ route, transport, message, call }: EventStream) {
  const response = await callStream(transport, route.method, one(message), onward(call));
  const iterator = response.message[Symbol.asyncIterator]();
  return { header: response.header, iterator, first: await iterator.next() };
}

/** True when the promise settled in time; rejects as it does. */
async function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(resolve, ms, false);
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
