import type { Caller } from "./callers/caller.ts";
import { connectCaller } from "./callers/connect.ts";
import { directCaller } from "./callers/direct.ts";
import { grpcCaller } from "./callers/grpc.ts";
import { sseCaller } from "./callers/sse.ts";
import { cpuMicros, descendantsCpuMicros } from "./proc-stat.ts";
import type { Server, Service } from "./processes.ts";

/** What is measured against what. */
export const TARGETS = {
  direct: "the model server itself",
  relay: "bare Connect + SDK relay",
  grpc: "agentmesh, gRPC",
  connect: "agentmesh, Connect",
  sse: "agentmesh, SSE (REST)",
} as const;

export type TargetName = keyof typeof TARGETS;

/** A way to ask, and the process whose work is counted. */
export interface Target {
  readonly name: TargetName;
  readonly caller: Caller;
  readonly pid: number;
}

export function targetsOf(model: Server, relay: Server, service: Service): Target[] {
  return [
    { name: "direct", caller: directCaller(model.url), pid: model.pid },
    { name: "relay", caller: connectCaller("relay", relay.url), pid: relay.pid },
    { name: "grpc", caller: grpcCaller(service.url, service.key), pid: service.pid },
    { name: "connect", caller: connectCaller("connect", service.url, service.key), pid: service.pid },
    { name: "sse", caller: sseCaller(service.url, service.key), pid: service.pid },
  ];
}

/** CPU time of a server and, apart from it, of the backends below it, since this was called; in microseconds. */
export function countCpu(pid: number): () => { server: number; backends: number } {
  const server = cpuMicros(pid);
  const backends = descendantsCpuMicros(pid);
  return () => ({ server: cpuMicros(pid) - server, backends: descendantsCpuMicros(pid) - backends });
}

/** Runs `work` again and again in so many lanes for so long; all lanes have ended when it resolves. */
export async function inLanes(
  lanes: number,
  forMs: number,
  work: (lane: number, isOver: () => boolean) => Promise<void>,
): Promise<void> {
  const until = performance.now() + forMs;
  const isOver = () => performance.now() >= until;
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      do await work(lane, isOver);
      while (!isOver());
    }),
  );
}

/** A text as no other turn has it, with the markers that steer the model server. */
export function ask(...markers: string[]): string {
  return ["Tell me something long.", ...markers.map((marker) => `[[${marker}]]`)].join(" ");
}
