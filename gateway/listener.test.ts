import assert from "node:assert/strict";
import { connect as connectH2, constants } from "node:http2";
import { describe, test } from "node:test";
import { Code, type ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { GATEWAY_LIMITS } from "./limits.ts";
import { rawHttp } from "./testing/raw-http.ts";
import { KEY, openTestGateway, type TestGatewayInit } from "./testing/test-gateway.ts";

const headers = { authorization: `Bearer ${KEY}` };

/** A chat that streams one message and waits. */
async function openChat(more: Partial<TestGatewayInit> = {}) {
  const gate = Promise.withResolvers<void>();
  const edge = await openTestGateway({
    services: [ChatService],
    routes: (router) =>
      router.service(ChatService, {
        chat: ({ message }) => ({ response: message }),
        async *chatStream(_request, { signal }) {
          yield { event: { seq: 1n, payload: { case: "text", value: { content: "x" } } } };
          await Promise.race([gate.promise, new Promise((resolve) => signal.addEventListener("abort", resolve))]);
          signal.throwIfAborted();
          yield { event: { seq: 2n, payload: { case: "final", value: { content: "x" } } } };
        },
      }),
    ...more,
  });
  const grpc = createClient(ChatService, createGrpcTransport({ baseUrl: edge.url }));
  const stream = (signal?: AbortSignal) =>
    edge.fetch("/api/v1/chat/stream", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"message":"x"}',
      ...(signal === undefined ? {} : { signal }),
    });
  return { edge, finish: gate.resolve, grpc, stream, [Symbol.asyncDispose]: () => edge[Symbol.asyncDispose]() };
}

describe("a drain", () => {
  test("refuses new calls on every face, lets streams end, and says that it is not ready", async () => {
    await using chat = await openChat();
    const { edge, grpc } = chat;
    const open = await chat.stream();
    const rpc = grpc.chatStream({ message: "x" }, { headers })[Symbol.asyncIterator]();
    await rpc.next();
    const drained = edge.gateway.drain(new AbortController().signal);

    const refused = await edge.json("POST", "/api/v1/chat", { message: "x" });
    assert.equal(refused.status, 503);
    assert.equal(refused.body.error.details[0].reason, "STREAM_DRAINING");
    assert.equal(refused.headers.get("retry-after"), "1");
    assert.equal(refused.headers.get("connection"), "close");
    assert.equal(reasonOf(await rejection(grpc.chat({ message: "x" }, { headers }))), "STREAM_DRAINING");
    assert.equal((await fetch(`${edge.url}/health/ready`)).status, 503);
    assert.equal((await fetch(`${edge.url}/health/live`)).status, 200);
    const health = createClient(Health, createGrpcTransport({ baseUrl: edge.url }));
    assert.equal((await health.check({})).status, 2);

    assert.equal(edge.gateway.edge.inFlight, 2);
    chat.finish();
    assert.match(await open.text(), /event: final/);
    assert.equal((await rpc.next()).value?.event?.payload.case, "final");
    assert.equal((await rpc.next()).done, true);
    await drained;
  });

  test("whose time is over ends streams with STREAM_DRAINING on every face", async () => {
    await using chat = await openChat();
    const open = await chat.stream();
    const rpc = chat.grpc.chatStream({ message: "x" }, { headers })[Symbol.asyncIterator]();
    await rpc.next();
    const grace = new AbortController();
    const drained = chat.edge.gateway.drain(grace.signal);
    grace.abort();
    const body = await open.text();
    assert.match(body, /event: error\ndata: \{"type":"error","code":"UNAVAILABLE","reason":"STREAM_DRAINING"/);
    assert.equal(reasonOf(await rejection(rpc.next())), "STREAM_DRAINING");
    await drained;
  });

  test("does not wait for health watchers", async () => {
    await using chat = await openChat();
    const health = createClient(Health, createGrpcTransport({ baseUrl: chat.edge.url }));
    const leave = new AbortController();
    const watch = health.watch({}, { signal: leave.signal })[Symbol.asyncIterator]();
    await watch.next();
    await chat.edge.gateway.drain(new AbortController().signal);
    leave.abort();
  });
});

describe("the listener", () => {
  test("refuses a target that is too long with 414", async () => {
    await using chat = await openChat();
    const fits = `/api/v1/nothing?${"a".repeat(GATEWAY_LIMITS.maxUrlBytes - "/api/v1/nothing?".length)}`;
    assert.equal((await chat.edge.json("GET", fits)).status, 404);
    const refused = await chat.edge.json("GET", `${fits}a`);
    assert.equal(refused.status, 414);
    assert.equal(refused.body.error.details[0].reason, "PAYLOAD_TOO_LARGE");
  });

  test("refuses RPC messages above the limit", async () => {
    await using chat = await openChat({ limits: { maxBodyBytes: 10_000 } });
    const message = "x".repeat(20_000);
    for (const transport of [
      createConnectTransport({ baseUrl: chat.edge.url, httpVersion: "1.1" }),
      createGrpcTransport({ baseUrl: chat.edge.url }),
    ]) {
      const error = await rejection(createClient(ChatService, transport).chat({ message }, { headers }));
      assert.equal(reasonOf(error), "PAYLOAD_TOO_LARGE");
    }
  });

  test("refuses to send RPC answers above the limit", async () => {
    await using chat = await openChat({ limits: { maxResponseBytes: 100 } });
    const error = await rejection(chat.grpc.chat({ message: "x".repeat(200) }, { headers }));
    assert.equal((error as ConnectError).code, Code.ResourceExhausted);
  });

  test("answers a refusal before it reads the body, and then reads no endless rest", async () => {
    await using chat = await openChat({ limits: { lingerMs: 100, lingerBytes: 50_000 } });
    const { port } = chat.edge;
    const head =
      "POST /api/v1/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n{";
    const begun = performance.now();
    assert.match(
      await rawHttp(port, head),
      /^HTTP\/1.1 401 /,
      "the answer comes, and the connection is closed after a while",
    );
    assert.ok(performance.now() - begun < 5_000);
    const session = connectH2(chat.edge.url);
    const stream = session.request({ ":method": "POST", ":path": "/api/v1/chat", "content-type": "application/json" });
    const status = new Promise((resolve) => stream.on("response", (response) => resolve(response[":status"])));
    stream.write("{");
    assert.equal(await status, 401);
    stream.resume();
    await new Promise((resolve) => stream.once("close", resolve));
    assert.equal(stream.rstCode, constants.NGHTTP2_NO_ERROR);
    session.close();
  });

  test("breaks off an RPC whose body does not come", async () => {
    await using chat = await openChat({ limits: { bodyTimeoutMs: 100 } });
    const session = connectH2(chat.edge.url);
    const stream = session.request({
      ":method": "POST",
      ":path": "/agentmesh.agent.v1.ChatService/Chat",
      "content-type": "application/proto",
      ...headers,
    });
    stream.on("error", () => {});
    stream.write(Buffer.from([0x0a]));
    await new Promise((resolve) => stream.once("close", resolve));
    session.close();
    await until(() => chat.edge.gateway.edge.inFlight === 0, "the end of the exchange");
  });

  test("survives targets and headers that make no sense", async () => {
    await using chat = await openChat();
    const { port } = chat.edge;
    for (const target of [
      "//",
      "/%",
      "*",
      "http://[",
      "/agentmesh.agent.v1.ChatService/Chat?%",
      "/..",
      "/__proto__",
      "/constructor",
    ]) {
      const answer = await rawHttp(port, `GET ${target} HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n`);
      assert.match(answer, /^HTTP\/1.1 4\d\d /, target);
    }
    assert.match(
      await rawHttp(port, "POST /agentmesh.agent.v1.ChatService/Chat HTTP/1.0\r\n\r\n"),
      /^HTTP\/1.1 4\d\d /,
    );
    assert.equal((await chat.edge.json("POST", "/api/v1/chat", { message: "still here" })).status, 200);
  });

  test("takes the client's address from X-Forwarded-For of trusted proxies only", async () => {
    for (const [trustedProxies, expected] of [
      [[], "127.0.0.1"],
      [["127.0.0.0/8"], "203.0.113.7"],
    ] as const) {
      let ip = "";
      await using edge = await openTestGateway({
        services: [ChatService],
        config: { trustedProxies },
        routes: (router) =>
          router.service(ChatService, {
            chat: (_request, context) => {
              ip = context.requestHeader.get("agentmesh-client-ip") ?? "";
              return {};
            },
          }),
      });
      await edge.json("POST", "/api/v1/chat", { message: "x" }, { "x-forwarded-for": "6.6.6.6, 203.0.113.7" });
      assert.equal(ip, expected);
      await createClient(ChatService, createGrpcTransport({ baseUrl: edge.url })).chat(
        { message: "x" },
        { headers: { ...headers, "x-forwarded-for": "6.6.6.6, 203.0.113.7" } },
      );
      assert.equal(ip, expected);
    }
  });
});
