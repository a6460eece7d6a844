import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.ts";
import { rootSecret } from "../secrets/root-secret.ts";
import { consume } from "./consume.ts";
import { mountHealth } from "./health.ts";
import { createHopVerifier } from "./hop-token.ts";
import { createLocalTransport } from "./local-transport.ts";
import { openPort } from "./port.ts";
import { deriveServiceKeys } from "./service-keys.ts";
import { createServicePipeline } from "./service-pipeline.ts";
import { adapt, RecordedCalls, rejection, until } from "./test-mesh.contract.ts";

const AGENT = "agentmesh.agent.v1.ChatService";

async function open() {
  const listeners = new Set<() => void>();
  let ready = false;
  const source = {
    ready: () => ready,
    services: () => [AGENT],
    onChange(listener: () => void) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
  const keys = deriveServiceKeys(rootSecret([randomBytes(32)]), ["agent"]);
  const calls = new RecordedCalls();
  const pipeline = createServicePipeline({ verifier: createHopVerifier(["agent"], keys), observation: calls });
  const routes = (router: Parameters<typeof mountHealth>[0]) => mountHealth(router, source);
  const port = await openPort({ host: "127.0.0.1", port: 0, listener: adapt(routes, pipeline) });
  return {
    listeners,
    calls,
    setReady(next: boolean) {
      ready = next;
      for (const listener of listeners) listener();
    },
    wake: () => {
      for (const listener of listeners) listener();
    },
    clients: {
      memory: createClient(Health, createLocalTransport(routes, pipeline)),
      grpc: createClient(Health, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port.port}` })),
    },
    [Symbol.asyncDispose]: () => port.close(50),
  };
}

for (const carrier of ["memory", "grpc"] as const) {
  describe(`health over ${carrier}`, () => {
    test("check answers for the process and for each service, without a credential", async () => {
      await using health = await open();
      const client = health.clients[carrier];
      for (const service of ["", AGENT]) {
        assert.equal((await client.check({ service })).status, Status.NOT_SERVING);
      }
      health.setReady(true);
      for (const service of ["", AGENT]) assert.equal((await client.check({ service })).status, Status.SERVING);
    });

    test("check of an unknown service is NOT_FOUND, as the protocol has it", async () => {
      await using health = await open();
      const error = await rejection(health.clients[carrier].check({ service: "nobody.v1.Service" }));
      assert.ok(error instanceof ConnectError);
      assert.equal(Code[error.code], "NotFound");
    });

    test("list names the process and its services", async () => {
      await using health = await open();
      health.setReady(true);
      const { statuses } = await health.clients[carrier].list({});
      assert.deepEqual(
        Object.entries(statuses).map(([name, { status }]) => [name, status]),
        [
          ["", Status.SERVING],
          [AGENT, Status.SERVING],
        ],
      );
    });

    test("watch tells the state at once and every change once, and forgets its reader", async () => {
      await using health = await open();
      const seen: Status[] = [];
      const reading = (async () => {
        for await (const { status } of consume((signal) =>
          health.clients[carrier].watch({ service: AGENT }, { signal }),
        )) {
          seen.push(status);
          if (seen.length === 3) break;
        }
      })();
      await until(() => seen.length === 1, "the first state");
      health.wake();
      health.setReady(true);
      await until(() => seen.length === 2, "the change");
      health.wake();
      health.setReady(false);
      await reading;
      assert.deepEqual(seen, [Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]);
      await until(() => health.listeners.size === 0, "the watcher to be forgotten");
      await health.calls.endOf("Watch");
    });

    test("watch of an unknown service says SERVICE_UNKNOWN and stays open", async () => {
      await using health = await open();
      const leave = new AbortController();
      const stream = health.clients[carrier].watch({ service: "later.v1.Service" }, { signal: leave.signal });
      const reader = stream[Symbol.asyncIterator]();
      assert.equal((await reader.next()).value?.status, Status.SERVICE_UNKNOWN);
      const next = rejection(reader.next());
      health.wake();
      leave.abort();
      assert.equal(Code[((await next) as ConnectError).code], "Canceled");
      await until(() => health.listeners.size === 0, "the watcher to be forgotten");
    });
  });
}
