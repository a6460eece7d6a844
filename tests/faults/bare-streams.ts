// node bare-streams.ts [<base URL>]: the yardstick of an idle stream, Connect's server over HTTP/2 and nothing else. Its
// streams say something once and then only that they live, as those of the service do; with a base URL it takes what they
// say from the server there, by gRPC over HTTP/2, as a gateway does. Prints {"url": "http://…"}.
import { once } from "node:events";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { HeartbeatSchema, RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";

const HEARTBEAT_MS = 15_000;

const [upstream] = process.argv.slice(2);
const behind =
  upstream === undefined ? undefined : createClient(RunService, createGrpcTransport({ baseUrl: upstream }));

const routes = connectNodeAdapter({
  routes: (router) =>
    void router.service(RunService, {
      async *streamRunEvents({ runId }, { signal }) {
        if (behind !== undefined) {
          yield* behind.streamRunEvents({ runId }, { signal });
          return;
        }
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
const server = createServer({ settings: { maxConcurrentStreams: 10_000 }, maxSessionMemory: 1_000 }, routes);
server.listen(0, "127.0.0.1");
await once(server, "listening");
process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })}\n`);
