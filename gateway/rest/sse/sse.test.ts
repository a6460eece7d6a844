import assert from "node:assert/strict";
import { connect as connectH2 } from "node:http2";
import { connect } from "node:net";
import { after, before, describe, test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, type HandlerContext } from "@connectrpc/connect";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import {
  ChatService,
  type ChatStreamRequest,
  type ChatStreamResponseSchema,
} from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import {
  RunService,
  type StreamRunEventsRequest,
  type StreamRunEventsResponseSchema,
} from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { rawHttp } from "../../testing/raw-http.ts";
import { KEY, openTestGateway, type TestGateway } from "../../testing/test-gateway.ts";

type ChatFrame = MessageInitShape<typeof ChatStreamResponseSchema>;
type RunFrame = MessageInitShape<typeof StreamRunEventsResponseSchema>;

let edge: TestGateway;
let chat: (request: ChatStreamRequest, context: HandlerContext) => AsyncIterable<ChatFrame>;
let events: (request: StreamRunEventsRequest, context: HandlerContext) => AsyncIterable<RunFrame>;

before(async () => {
  edge = await openTestGateway({
    services: [ChatService, RunService],
    routes: (router) => {
      router.service(ChatService, { chatStream: (request, context) => chat(request, context) });
      router.service(RunService, { streamRunEvents: (request, context) => events(request, context) });
    },
    limits: { heartbeatMs: 150, stallMs: 400 },
  });
});
after(() => edge[Symbol.asyncDispose]());

function text(seq: number, content: string): ChatFrame {
  return { event: { seq: BigInt(seq), payload: { case: "text", value: { content, itemId: "msg_1" } } } };
}

const unavailable = () =>
  new AppError({ code: Code.Unavailable, reason: "STREAM_DRAINING", message: "Connect again.", retryAfterMs: 1000 });

function open(headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> {
  return edge.fetch("/api/v1/chat/stream", {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: '{"message":"hi"}',
    ...(signal === undefined ? {} : { signal }),
  });
}

function parse(stream: string): { events: EventSourceMessage[]; comments: string[] } {
  const found: EventSourceMessage[] = [];
  const comments: string[] = [];
  const parser = createParser({
    onEvent: (event) => found.push(event),
    onComment: (comment) => comments.push(comment),
  });
  parser.feed(stream);
  return { events: found, comments };
}

describe("flat events", () => {
  test("are type, seq and the fields, with embedded JSON as JSON", async () => {
    chat = async function* () {
      yield text(3, 'a\nb\r\nc\u2028"ü😀"\u0000');
      yield {
        event: {
          seq: 4n,
          payload: {
            case: "toolCall",
            value: { tool: "t", argsJson: '{\n "big": 9007199254740993,\n "z": 1, "a": [1.0, "x"]}', callId: "call_1" },
          },
        },
      };
    };
    const response = await open();
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
    assert.equal(response.headers.get("cache-control"), "no-store");
    assert.equal(response.headers.get("x-accel-buffering"), "no");
    assert.notEqual(response.headers.get("x-request-id"), null);
    const stream = await response.text();
    assert.equal(stream.split("\n\n")[0]?.split("\n").length, 3, "data is one line whatever it holds");
    const [first, second] = parse(stream).events;
    assert.deepEqual([first?.id, first?.event], ["3", "text"]);
    assert.equal(first?.data.startsWith('{"type":"text","seq":"3","content":'), true, first?.data);
    assert.equal(JSON.parse(first?.data ?? "").content, 'a\nb\r\nc\u2028"ü😀"\u0000');
    assert.equal(
      second?.data,
      '{"type":"tool_call","seq":"4","tool":"t","args":{"big":9007199254740993,"z":1,"a":[1.0,"x"]},"call_id":"call_1","client_executed":false}',
    );
  });

  test("keep arguments that are no JSON as text, and show none as null", async () => {
    chat = async function* () {
      for (const argsJson of ['{"cut', "", "[".repeat(100)]) {
        yield { event: { seq: 1n, payload: { case: "toolCall", value: { tool: "t", argsJson, callId: "c" } } } };
      }
    };
    const { events: found } = parse(await (await open()).text());
    assert.deepEqual(
      found.map(({ data }) => JSON.parse(data).args),
      ['{"cut', null, "[".repeat(100)],
    );
  });

  test("leave out frames that this gateway does not know", async () => {
    chat = async function* () {
      yield { event: { seq: 1n } };
      yield {};
      yield text(2, "x");
    };
    assert.deepEqual(
      parse(await (await open()).text()).events.map(({ id }) => id),
      ["2"],
    );
  });
});

describe("an event stream", () => {
  test("that fails before its first message has the status of its error", async () => {
    // biome-ignore lint/correctness/useYield: a stream that fails at once
    chat = async function* () {
      throw new AppError({ code: Code.NotFound, reason: "RESOURCE_NOT_FOUND", message: "No such session." });
    };
    const response = await open();
    assert.equal(response.status, 404);
    assert.equal(response.headers.get("content-type"), "application/json");
    assert.equal(((await response.json()) as { error: { status: string } }).error.status, "NOT_FOUND");
  });

  test("that fails later ends with one flat error event, without an id", async () => {
    chat = async function* () {
      yield text(1, "x");
      throw unavailable();
    };
    const { events: found } = parse(await (await open()).text());
    assert.deepEqual(
      found.map(({ event }) => event),
      ["text", "error"],
    );
    assert.equal(found[1]?.id, undefined);
    const { type, code, reason, message, seq } = JSON.parse(found[1]?.data ?? "");
    assert.deepEqual(
      [type, code, reason, message, seq],
      ["error", "UNAVAILABLE", "STREAM_DRAINING", "Connect again.", undefined],
    );
  });

  test("that is not flat ends with the error as AIP-193 has it", async () => {
    events = async function* () {
      yield { frame: { case: "event", value: { seq: 7n, type: "text_delta" } } };
      throw unavailable();
    };
    const stream = await (await edge.fetch("/api/v1/runs/run_1/events:stream")).text();
    const { events: found } = parse(stream);
    assert.deepEqual([found[0]?.id, found[0]?.event], ["7", "event"]);
    assert.equal(JSON.parse(found[0]?.data ?? "").event.type, "text_delta");
    assert.equal(JSON.parse(found[1]?.data ?? "").error.status, "UNAVAILABLE");
    assert.equal(found[1]?.event, "error");
  });

  test("without messages is an empty stream", async () => {
    chat = async function* () {};
    const response = await open();
    assert.equal(response.status, 200);
    assert.equal(await response.text(), "");
  });

  test("names control frames by their member and gives them no id", async () => {
    events = async function* () {
      yield { frame: { case: "caughtUp", value: { seq: 5n } } };
      yield { frame: { case: "heartbeat", value: { time: { seconds: 5n } } } };
    };
    const { events: found } = parse(await (await edge.fetch("/api/v1/runs/run_1/events:stream")).text());
    assert.deepEqual(
      found.map(({ event, id, data }) => [event, id, data]),
      [
        ["caught_up", undefined, '{"caught_up":{"seq":"5"}}'],
        ["heartbeat", undefined, '{"heartbeat":{"time":"1970-01-01T00:00:05Z"}}'],
      ],
    );
  });

  test("passes the Location of the run on", async () => {
    chat = async function* (_request, context) {
      context.responseHeader.set("location", "/api/v1/runs/run_1/events:stream");
      yield text(1, "x");
    };
    const response = await open();
    assert.equal(response.headers.get("location"), "/api/v1/runs/run_1/events:stream");
    await response.text();
  });

  test("resumes from Last-Event-ID, unless the request says from where", async () => {
    const asked: bigint[] = [];
    // biome-ignore lint/correctness/useYield: only what was asked matters
    events = async function* ({ afterSeq }) {
      asked.push(afterSeq);
    };
    const resume = async (query: string, id: string) => {
      const response = await edge.fetch(`/api/v1/runs/run_1/events:stream${query}`, {
        headers: { "last-event-id": id },
      });
      await response.text();
      return response.status;
    };
    assert.equal(await resume("", "17"), 200);
    assert.equal(await resume("?after_seq=3", "17"), 200);
    assert.equal(await resume("", ""), 200);
    assert.deepEqual(asked, [17n, 3n, 0n]);
    assert.equal(await resume("", "x"), 400);
  });

  test("sends a comment after every silence, also before its first message", async () => {
    chat = async function* () {
      await new Promise((resolve) => setTimeout(resolve, 400));
      yield text(1, "x");
      await new Promise((resolve) => setTimeout(resolve, 250));
      yield text(2, "y");
    };
    const response = await open();
    assert.equal(response.status, 200);
    const { events: found, comments } = parse(await response.text());
    assert.equal(found.length, 2);
    assert.ok(comments.length >= 2 && comments.every((comment) => comment.trim() === "heartbeat"), String(comments));
  });

  test("whose error comes after the headers were sent in silence still tells it", async () => {
    chat = async function* () {
      await new Promise((resolve) => setTimeout(resolve, 300));
      throw unavailable();
    };
    const { events: found } = parse(await (await open()).text());
    assert.equal(JSON.parse(found[0]?.data ?? "").reason, "STREAM_DRAINING");
  });

  test("sends every message at once, over HTTP/1.1 and HTTP/2", async () => {
    let next = Promise.withResolvers<void>();
    chat = async function* () {
      for (let seq = 1; seq <= 3; seq += 1) {
        yield text(seq, "x");
        await next.promise;
        next = Promise.withResolvers();
      }
    };
    const readAll = async (chunks: AsyncIterable<Uint8Array | string>) => {
      let received = 0;
      for await (const chunk of chunks) {
        received += parse(Buffer.from(chunk).toString()).events.length;
        // The next message is made only when this one has arrived: were it held back, the test would hang.
        next.resolve();
      }
      return received;
    };
    const { body } = await open();
    assert.equal(await readAll(body as unknown as AsyncIterable<Uint8Array>), 3);
    const session = connectH2(edge.url);
    const stream = session.request({
      ":method": "POST",
      ":path": "/api/v1/chat/stream",
      "x-api-key": KEY,
      "content-type": "application/json",
    });
    stream.end('{"message":"hi"}');
    assert.equal(await readAll(stream), 3);
    session.close();
  });

  test("whose client goes away ends the call", async () => {
    let released = false;
    chat = async function* (_request, { signal }) {
      try {
        yield text(1, "x");
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        yield text(2, "y");
      } finally {
        released = true;
      }
    };
    const controller = new AbortController();
    const response = await open({}, controller.signal);
    await response.body?.getReader().read();
    controller.abort();
    await until(() => released, "the release of the handler");
    await until(() => edge.gateway.edge.inFlight === 0, "the end of the exchange");
  });

  test("waits for a slow reader, and cuts off one that reads nothing", async () => {
    let made = 0;
    let ended = false;
    chat = async function* () {
      try {
        for (; made < 10_000; made += 1) yield text(made + 1, "x".repeat(16_384));
      } finally {
        ended = true;
      }
    };
    const socket = connect(edge.port, "127.0.0.1");
    const body = '{"message":"hi"}';
    socket.on("error", () => {});
    socket.write(
      `POST /api/v1/chat/stream HTTP/1.1\r\nHost: x\r\nX-API-Key: ${KEY}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await new Promise((resolve) => socket.once("data", resolve));
    socket.pause();
    await until(() => ended, "the end of the stalled stream");
    assert.ok(made < 2_000, `${made} messages were made for a reader that reads nothing`);
    assert.equal(edge.calls.ended.findLast(({ method }) => method === "ChatStream")?.reason, "STREAM_SLOW_CONSUMER");
    socket.destroy();
  });

  test("is refused with a status when the credential is missing", async () => {
    const request = "POST /api/v1/chat/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert.match(await rawHttp(edge.port, request), /^HTTP\/1.1 401 .*www-authenticate: Bearer/is);
  });
});
