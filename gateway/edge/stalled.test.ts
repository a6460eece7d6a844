import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectH2 } from "node:http2";
import { connect } from "node:net";
import { describe, test } from "node:test";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { KEY, openTestGateway } from "../testing/test-gateway.ts";

const PATH = `/${ChatService.typeName}/ChatStream`;
const MESSAGE = '{"message":"x"}';
/** One Connect stream message: flags, length, JSON. */
const BODY = Buffer.concat([Buffer.from([0, 0, 0, 0, MESSAGE.length]), Buffer.from(MESSAGE)]);

/** A chat that writes for as long as its reader reads, or says one word and is silent. */
async function openChat(endless: boolean) {
  return openTestGateway({
    services: [ChatService],
    limits: { stallMs: 200 },
    routes: (router) =>
      router.service(ChatService, {
        async *chatStream(_request, { signal }) {
          const content = "x".repeat(endless ? 100_000 : 1);
          do {
            yield { event: { seq: 1n, payload: { case: "text", value: { content } } } };
          } while (endless && !signal.aborted);
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      }),
  });
}

const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/connect+json" };

describe("the reader of an RPC stream", () => {
  test("that keeps its HTTP/2 window at 0 is cut, and its call ends", { timeout: 20_000 }, async () => {
    await using edge = await openChat(true);
    const session = connectH2(edge.url, { settings: { initialWindowSize: 0 } });
    session.on("error", () => {});
    await once(session, "remoteSettings");
    const stream = session.request({ ":method": "POST", ":path": PATH, ...headers });
    stream.on("error", () => {});
    stream.end(BODY);
    await once(stream, "close");
    await until(() => edge.gateway.edge.inFlight === 0 && edge.gateway.streams.tenants === 0, "the end");
    session.destroy();
  });

  test("that does not read its HTTP/1.1 socket is cut, and its call ends", { timeout: 20_000 }, async () => {
    await using edge = await openChat(true);
    const socket = connect(edge.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.pause();
    const head = Object.entries({ host: "x", ...headers, "content-length": String(BODY.length) });
    socket.write(`POST ${PATH} HTTP/1.1\r\n${head.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`);
    socket.write(BODY);
    await until(() => edge.gateway.edge.inFlight === 1, "the call");
    await until(() => edge.gateway.edge.inFlight === 0 && edge.gateway.streams.tenants === 0, "the end");
    socket.destroy();
  });

  test("is not cut for our silence", { timeout: 20_000 }, async () => {
    await using edge = await openChat(false);
    const session = connectH2(edge.url);
    const h2 = session.request({ ":method": "POST", ":path": PATH, ...headers });
    h2.on("error", () => {}).resume();
    h2.end(BODY);
    const h1 = await fetch(edge.url + PATH, { method: "POST", headers, body: BODY });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    assert.equal(h2.closed, false);
    assert.equal(edge.gateway.edge.inFlight, 2);
    await h1.body?.cancel();
    session.destroy();
    await until(() => edge.gateway.edge.inFlight === 0, "the end");
  });
});
