import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import { KEY, openTestGateway } from "../testing/test-gateway.ts";
import { createHeapGuard } from "./heap-guard.ts";

const limits = { heapRefusePercent: 90, heapResumePercent: 70, heapSampleMs: 5 };
const metrics = () => createMetrics({ process: false });

describe("the heap guard", () => {
  test("refuses from the upper threshold on, and takes calls again below the lower one", async () => {
    let percent = 50;
    let looks = 0;
    const changes: [boolean, number][] = [];
    using guard = createHeapGuard({
      limits,
      metrics: metrics(),
      heapPercent: () => {
        looks += 1;
        return percent;
      },
      onChange: (...change) => void changes.push(change),
    });
    const settle = async (next: number) => {
      percent = next;
      const seen = looks;
      await until(() => looks > seen + 1, "the next look");
      return guard.refuses;
    };
    assert.equal(await settle(89), false);
    assert.equal(await settle(90), true);
    assert.equal(await settle(71), true);
    assert.equal(await settle(69), false);
    assert.equal(await settle(89), false);
    assert.deepEqual(changes, [
      [true, 90],
      [false, 69],
    ]);
  });

  test("looks at this process's own heap", () => {
    using refusing = createHeapGuard({ limits: { ...limits, heapRefusePercent: 0.01 }, metrics: metrics() });
    using other = createHeapGuard({ limits: { ...limits, heapRefusePercent: 99.9 }, metrics: metrics() });
    assert.deepEqual([refusing.refuses, other.refuses], [true, false]);
    assert.doesNotThrow(() => other.check());
    assert.throws(() => refusing.check(), { code: Code.Unavailable, reason: "DEPENDENCY_DOWN" });
  });
});

describe("a gateway whose heap is nearly full", () => {
  const open = (heapRefusePercent: number) =>
    openTestGateway({
      services: [ChatService],
      limits: { heapRefusePercent, heapResumePercent: 0 },
      routes: (router) =>
        router.service(ChatService, {
          chat: () => ({ response: "hello" }),
          async *chatStream() {
            yield { event: { seq: 1n, payload: { case: "final", value: { content: "x" } } } };
          },
        }),
    });

  test("answers 503 with Retry-After on every face, before it asks for the credential, and is alive", async () => {
    await using edge = await open(0);
    const rest = await edge.json("POST", "/api/v1/chat", { message: "x" });
    assert.equal(rest.status, 503);
    assert.equal(rest.headers.get("retry-after"), "2");
    assert.equal(rest.body.error.details[0].reason, "DEPENDENCY_DOWN");
    assert.equal(rest.body.error.details[0].metadata.dependency, "memory");
    const stream = await edge.json("POST", "/api/v1/chat/stream", { message: "x" });
    assert.equal(stream.status, 503);
    for (const transport of [
      createConnectTransport({ baseUrl: edge.url, httpVersion: "1.1" }),
      createGrpcWebTransport({ baseUrl: edge.url, httpVersion: "1.1" }),
      createGrpcTransport({ baseUrl: edge.url }),
    ]) {
      const client = createClient(ChatService, transport);
      const headers = { authorization: `Bearer ${KEY}` };
      const error = await rejection(client.chat({ message: "x" }, { headers }));
      assert.ok(error instanceof ConnectError);
      assert.equal(error.code, Code.Unavailable);
      assert.equal(reasonOf(error), "DEPENDENCY_DOWN");
      assert.equal(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 2n);
      assert.equal(error.metadata.get("retry-after"), "2");
    }
    assert.equal(edge.keys.asked, 0);
    assert.equal((await fetch(`${edge.url}/health/live`)).status, 200);
    assert.match(await (await fetch(`${edge.url}/metrics`)).text(), /^gateway_heap_refuses 1$/m);
  });

  test("is one that answers while the heap is below the threshold", async () => {
    await using edge = await open(99.9);
    assert.equal((await edge.json("POST", "/api/v1/chat", { message: "x" })).status, 200);
  });
});
