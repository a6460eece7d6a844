import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { ApiKeyRevokedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import type { GatewayLimits } from "../limits.ts";
import { KEY, openTestGateway, TENANT, type TestGateway } from "../testing/test-gateway.ts";

const HOUR_MS = 3_600_000;
const SECOND_KEY = "am_live_second";
const NEVER = { streamRecheckMs: HOUR_MS, streamAgeMs: HOUR_MS };
const OFTEN = { streamRecheckMs: 50, streamAgeMs: HOUR_MS, credentialTtlMs: 10, refusalTtlMs: 10 };

/** A chat that says one word and is silent until its caller leaves. */
async function openChat(limits: Partial<GatewayLimits>) {
  const state = { ended: 0 };
  const edge = await openTestGateway({
    services: [ChatService],
    limits,
    routes: (router) =>
      router.service(ChatService, {
        async *chatStream(_request, { signal }) {
          yield { event: { seq: 1n, payload: { case: "text", value: { content: "x" } } } };
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          state.ended += 1;
          signal.throwIfAborted();
        },
      }),
  });
  edge.keys.known.set(SECOND_KEY, { credentialId: "key_2" });
  return { edge, state, [Symbol.asyncDispose]: () => edge[Symbol.asyncDispose]() };
}

const TRANSPORTS: Readonly<Record<string, (baseUrl: string) => Transport>> = {
  "Connect, HTTP/1.1": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "gRPC-Web, HTTP/1.1": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  gRPC: (baseUrl) => createGrpcTransport({ baseUrl }),
};

/** Streams over every RPC face, each with its first message read. */
async function openStreams(edge: TestGateway, key = KEY) {
  const headers = { authorization: `Bearer ${key}` };
  const streams = Object.values(TRANSPORTS).map((transport) =>
    createClient(ChatService, transport(edge.url)).chatStream({ message: "x" }, { headers })[Symbol.asyncIterator](),
  );
  for (const stream of streams) assert.equal((await stream.next()).done, false);
  return streams;
}

const openSse = (edge: TestGateway, key = KEY) =>
  edge.fetch("/api/v1/chat/stream", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: '{"message":"x"}',
  });

describe("an open stream", { timeout: 30_000 }, () => {
  test("of a credential that is good no longer ends with UNAUTHENTICATED on every face, and its call with it", async () => {
    await using chat = await openChat(OFTEN);
    const { edge, state } = chat;
    const streams = await openStreams(edge);
    const sse = await openSse(edge);
    assert.equal(edge.gateway.watch.size, 4);
    edge.keys.known.delete(KEY);
    for (const stream of streams) {
      const error = await rejection(stream.next());
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.Unauthenticated);
      assert.equal(reasonOf(error), "CREDENTIAL_INVALID");
    }
    assert.match(
      await sse.text(),
      /event: error\ndata: \{"type":"error","code":"UNAUTHENTICATED","reason":"CREDENTIAL_INVALID"/,
    );
    await until(() => edge.gateway.watch.size === 0 && state.ended === 4, "the end of the calls");
    assert.deepEqual(new Set(edge.calls.ended.map(({ code }) => code)), new Set(["unauthenticated"]));
  });

  test("of a revoked key ends as soon as the bus says so, and no other key's", async () => {
    await using chat = await openChat(NEVER);
    const { edge } = chat;
    const sse = await openSse(edge);
    const other = await openSse(edge, SECOND_KEY);
    edge.keys.known.delete(KEY);
    const event = create(ApiKeyRevokedSchema, { tenantId: TENANT, apiKeyId: "key_1" });
    edge.bus.notify(`agentmesh.auth.v1.${TENANT}.key_revoked`, toBinary(ApiKeyRevokedSchema, event));
    assert.match(await sse.text(), /"reason":"CREDENTIAL_INVALID"/);
    assert.equal(edge.gateway.watch.size, 1);
    await other.body?.cancel();
  });

  test("of a suspended tenant ends with PERMISSION_DENIED TENANT_SUSPENDED", async () => {
    await using chat = await openChat(OFTEN);
    const sse = await openSse(chat.edge);
    chat.edge.keys.suspended = true;
    assert.match(await sse.text(), /"code":"PERMISSION_DENIED","reason":"TENANT_SUSPENDED"/);
  });

  test("whose credential has lost the method's scope ends with SCOPE_MISSING", async () => {
    await using chat = await openChat(OFTEN);
    const sse = await openSse(chat.edge);
    chat.edge.keys.known.set(KEY, { scopes: ["sessions:read"] });
    assert.match(await sse.text(), /"code":"PERMISSION_DENIED","reason":"SCOPE_MISSING"/);
  });

  test("goes on while its credential is good, and while auth cannot be asked", async () => {
    await using chat = await openChat({ ...OFTEN, verifyTimeoutMs: 50 });
    const { edge } = chat;
    const sse = await openSse(edge);
    const asked = edge.keys.asked;
    await until(() => edge.keys.asked >= asked + 2, "two checks");
    edge.keys.away = new Promise(() => {});
    const before = edge.keys.asked;
    await until(() => edge.keys.asked >= before + 2, "two checks without an answer");
    assert.equal(edge.gateway.watch.size, 1);
    edge.keys.away = undefined;
    edge.keys.known.delete(KEY);
    assert.match(await sse.text(), /"reason":"CREDENTIAL_INVALID"/);
  });

  test("that is old ends with STREAM_DRAINING and says when to come back, on every face", async () => {
    await using chat = await openChat({ ...NEVER, streamAgeMs: 500 });
    const streams = await openStreams(chat.edge);
    const sse = await openSse(chat.edge);
    for (const stream of streams) {
      const error = await rejection(stream.next());
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.Unavailable);
      assert.equal(reasonOf(error), "STREAM_DRAINING");
      assert.equal(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 1n);
    }
    assert.match(await sse.text(), /"code":"UNAVAILABLE","reason":"STREAM_DRAINING"/);
    await until(() => chat.edge.gateway.watch.size === 0, "the end of the calls");
  });

  test("is asked about no more when its reader has left", async () => {
    await using chat = await openChat(OFTEN);
    const { edge } = chat;
    const sse = await openSse(edge);
    await sse.body?.cancel();
    await until(() => edge.gateway.watch.size === 0, "the end of the call");
    const asked = edge.keys.asked;
    await pause(300);
    assert.equal(edge.keys.asked, asked);
  });
});
