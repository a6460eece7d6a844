import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { request } from "undici";
import { RunService, StartRunRequestSchema, StartRunResponseSchema } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { TurnFailed } from "../callers/caller.ts";
import { createAgent } from "../callers/http-stream.ts";
import type { Plan } from "../plan.ts";
import type { Service } from "../processes.ts";
import { quantile } from "../statistics.ts";
import { ask, countCpu, inLanes } from "../target.ts";

export interface Creates {
  readonly createsPerSecond: number;
  readonly cpuPerCreate: number;
  readonly backendCpuPerCreate: number;
  /** Milliseconds until a run is acknowledged, which is after its commit. */
  readonly p50: number;
  readonly p99: number;
}

/** StartRun with its durable acknowledgement, over Connect; the model is so slow that no run ends meanwhile. */
export async function creates(service: Service, plan: Plan["creates"]): Promise<Creates[]> {
  await using agent = createAgent();
  const headers = { authorization: `Bearer ${service.key}`, "content-type": "application/proto" };
  const url = `${service.url}/${RunService.typeName}/StartRun`;
  const bodyOf = (message: string) => toBinary(StartRunRequestSchema, create(StartRunRequestSchema, { message }));
  const slow = bodyOf(ask("deltas 2", "slow 60000"));
  const one = async (body: Uint8Array) => {
    const answer = await request(url, { dispatcher: agent, method: "POST", headers, body });
    const bytes = await answer.body.bytes();
    if (answer.statusCode !== 200) throw new TurnFailed(Buffer.from(bytes).toString());
    if (fromBinary(StartRunResponseSchema, bytes).run?.runId === undefined) throw new TurnFailed("no run");
  };
  // Runs that end: the code is compiled, and nothing of them is left open.
  const quick = bodyOf(ask("deltas 2"));
  for (let i = 0; i < plan.warmUp; i += plan.concurrency) {
    await Promise.all(Array.from({ length: plan.concurrency }, () => one(quick)));
  }
  const windows: Creates[] = [];
  for (let i = 0; i < plan.windows; i++) {
    const times: number[] = [];
    const cpu = countCpu(service.pid);
    const began = performance.now();
    await inLanes(plan.concurrency, plan.windowMs, async () => {
      const at = performance.now();
      await one(slow);
      times.push(performance.now() - at);
    });
    const used = cpu();
    windows.push({
      createsPerSecond: times.length / ((performance.now() - began) / 1_000),
      cpuPerCreate: used.server / times.length,
      backendCpuPerCreate: used.backends / times.length,
      p50: quantile(times, 0.5),
      p99: quantile(times, 0.99),
    });
  }
  return windows;
}
