import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from "node:http2";
import { after, before, describe, test } from "node:test";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { GATEWAY_LIMITS } from "./limits.ts";
import { rawHttp } from "./testing/raw-http.ts";
import { KEY, openTestGateway, type TestGateway } from "./testing/test-gateway.ts";

const LIMIT = 100_000;
const AUTHORIZATION = { authorization: `Bearer ${KEY}` };
const CHAT = "/agentmesh.agent.v1.ChatService/Chat";
const STREAM = "/agentmesh.agent.v1.ChatService/ChatStream";

function envelope(bytes: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

const JSON_BODY = Buffer.from(JSON.stringify({ message: "x".repeat(3 * LIMIT) }));
const BINARY = Buffer.concat([Buffer.of(0x0a, 0xe0, 0xa7, 0x12), Buffer.alloc(3 * LIMIT, "x")]);

/** The ways to send a message that is too large, and the status that is the answer. */
const FACES: Record<string, { path: string; type: string; body: Buffer; status: number; said: RegExp }> = {
  REST: { path: "/api/v1/chat", type: "application/json", body: JSON_BODY, status: 413, said: /PAYLOAD_TOO_LARGE/ },
  "REST events": {
    path: "/api/v1/chat/stream",
    type: "application/json",
    body: JSON_BODY,
    status: 413,
    said: /PAYLOAD_TOO_LARGE/,
  },
  Connect: { path: CHAT, type: "application/json", body: JSON_BODY, status: 429, said: /resource_exhausted/ },
  "Connect binary": { path: CHAT, type: "application/proto", body: BINARY, status: 429, said: /resource_exhausted/ },
  "a Connect stream": {
    path: STREAM,
    type: "application/connect+json",
    body: envelope(JSON_BODY),
    status: 200,
    said: /resource_exhausted/,
  },
  gRPC: { path: CHAT, type: "application/grpc+proto", body: envelope(BINARY), status: 200, said: /^8$/ },
  "a gRPC stream": { path: STREAM, type: "application/grpc+proto", body: envelope(BINARY), status: 200, said: /^8$/ },
  "gRPC-Web": {
    path: CHAT,
    type: "application/grpc-web+proto",
    body: envelope(BINARY),
    status: 200,
    said: /grpc-status: 8/,
  },
};

interface Answer {
  status: number;
  /** The body, or the status of gRPC when it is among the headers or trailers. */
  said: string;
  rstCode: number;
}

/** A client of Node's counts what it cannot send any more against itself. */
const CLIENT = { maxSessionMemory: 1000, maxSendHeaderBlockLength: 1_000_000 };

const closed = (stream: ClientHttp2Stream) => new Promise<void>((resolve) => stream.once("close", resolve));

async function send(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: Buffer): Promise<Answer> {
  const stream = session.request({ ...AUTHORIZATION, ...headers }, { endStream: body === undefined });
  let [status, said] = [0, ""];
  stream.on("response", (head) => {
    status = Number(head[":status"]);
    said += head["grpc-status"] ?? "";
  });
  stream.on("trailers", (trailers) => {
    said += trailers["grpc-status"] ?? "";
  });
  stream.setEncoding("latin1").on("data", (chunk) => {
    said += chunk;
  });
  stream.on("error", () => {});
  if (body !== undefined) stream.end(body);
  await closed(stream);
  return { status, said, rstCode: stream.rstCode ?? -1 };
}

describe("what is too large", () => {
  let edge: TestGateway;
  let session: ClientHttp2Session;
  let [open, opened] = [0, 0];
  const onCreated = () => {
    open += 1;
    opened += 1;
  };
  const onClose = () => {
    open -= 1;
  };
  before(async () => {
    edge = await openTestGateway({
      services: [ChatService],
      routes: (router) =>
        router.service(ChatService, {
          chat: ({ message }) => ({ response: message }),
          async *chatStream() {},
        }),
      limits: { maxBodyBytes: LIMIT, lingerBytes: 1_000_000 },
    });
    subscribe("http2.server.stream.created", onCreated);
    subscribe("http2.server.stream.close", onClose);
    session = connect(edge.url, CLIENT);
    await once(session, "remoteSettings");
  });
  after(async () => {
    session?.destroy();
    unsubscribe("http2.server.stream.created", onCreated);
    unsubscribe("http2.server.stream.close", onClose);
    await edge?.[Symbol.asyncDispose]();
  });

  /** The connection is as good as before: nothing is open on it, and it takes the next request. */
  async function assertUnharmed(): Promise<void> {
    await until(() => open === 0, "the end of every stream");
    await until(() => edge.gateway.edge.inFlight === 0, "the end of every exchange");
    assert.equal(session.closed || session.destroyed, false);
    const before = opened;
    assert.equal((await send(session, { ":path": "/health/live" })).status, 200);
    assert.equal(opened, before + 1, "streams are counted");
  }

  for (const [face, { path, type, body, status, said }] of Object.entries(FACES)) {
    test(`a body over ${face} is answered, its stream ends, and its connection goes on`, async () => {
      const head = { ":method": "POST", ":path": path, "content-type": type };
      const announced = { ...head, "content-length": body.length };
      const answers = await Promise.all([send(session, head, body), send(session, announced, body)]);
      for (const answer of answers) {
        assert.equal(answer.status, status);
        assert.match(answer.said, said);
        assert.equal(answer.rstCode, constants.NGHTTP2_NO_ERROR);
      }
      await assertUnharmed();
    });
  }

  test("a body that goes on without end is broken off behind its answer, and its connection goes on", async () => {
    for (const { path, type, body } of Object.values(FACES)) {
      const stream = session.request({ ...AUTHORIZATION, ":method": "POST", ":path": path, "content-type": type });
      stream.on("error", () => {});
      stream.write(body);
      const more = setInterval(() => stream.write(Buffer.alloc(1_000_000)), 1);
      stream.resume();
      await closed(stream);
      clearInterval(more);
      assert.equal(stream.rstCode, constants.NGHTTP2_NO_ERROR);
    }
    await assertUnharmed();
  });

  test("a target is 414 over HTTP/2 up to what HPACK can carry, and over HTTP/1.1", async () => {
    for (const bytes of [GATEWAY_LIMITS.maxUrlBytes + 1, 20_000, 60_000]) {
      const path = `/api/v1/${"x".repeat(bytes - "/api/v1/".length)}`;
      const { status, said } = await send(session, { ":path": path });
      assert.equal(status, 414);
      assert.match(said, /"reason":"PAYLOAD_TOO_LARGE"/);
      assert.match(
        await rawHttp(edge.port, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
        /^HTTP\/1.1 414 .*"reason":"PAYLOAD_TOO_LARGE"/s,
      );
    }
    await assertUnharmed();
  });

  test("headers are 431 over HTTP/2 and HTTP/1.1, be they large or many", async () => {
    const large = { large: "x".repeat(GATEWAY_LIMITS.maxHeaderBytes) };
    const many = Object.fromEntries(Array.from({ length: GATEWAY_LIMITS.maxHeaders }, (_, i) => [`x-${i}`, "1"]));
    for (const headers of [large, many]) {
      const { status, said } = await send(session, { ":path": "/api/v1/sessions", ...headers });
      assert.equal(status, 431);
      assert.match(said, /"reason":"PAYLOAD_TOO_LARGE"/);
      const lines = Object.entries({ host: "x", connection: "close", ...headers }).map(([name, v]) => `${name}: ${v}`);
      assert.match(
        await rawHttp(edge.port, `GET /api/v1/sessions HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`),
        /^HTTP\/1.1 431 .*"reason":"PAYLOAD_TOO_LARGE"/s,
      );
    }
    const fits = Object.fromEntries(Object.entries(many).slice(2));
    assert.equal((await send(session, { ":path": "/health/live", ...fits })).status, 200);
    await assertUnharmed();
  });

  test("one header beyond what HPACK can carry ends its own connection and no other", async () => {
    const offender = connect(edge.url, CLIENT);
    offender.on("error", () => {});
    await once(offender, "remoteSettings");
    let code = -1;
    offender.once("goaway", (sent) => {
      code = sent;
    });
    await send(offender, { ":path": `/${"x".repeat(100_000)}` });
    assert.equal(code, constants.NGHTTP2_COMPRESSION_ERROR);
    await assertUnharmed();
  });
});
