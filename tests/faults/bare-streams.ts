// node bare-streams.ts: the yardstick of an idle stream. A server of Connect and gRPC over HTTP/2 whose streams say
// something once and then only that they live, as those of the service do. Prints {"url": "http://…"}.
import { once } from "node:events";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { HeartbeatSchema, RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";

const HEARTBEAT_MS = 15_000;

const routes = connectNodeAdapter({
  routes: (router) =>
    void router.service(RunService, {
      async *streamRunEvents({ runId }, { signal }) {
        yield {
          frame: { case: "event" as const, value: create(AgentEventSchema, { runId, seq: 1n, type: "run_started" }) },
        };
        for (;;) {
          await sleep(HEARTBEAT_MS, undefined, { signal });
          yield { frame: { case: "heartbeat" as const, value: create(HeartbeatSchema) } };
        }
      },
    }),
});
const server = createServer({ settings: { maxConcurrentStreams: 100 } }, routes);
server.listen(0, "127.0.0.1");
await once(server, "listening");
process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })}\n`);
