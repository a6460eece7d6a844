import { runCaller } from "../callers/runs.ts";
import type { Plan } from "../plan.ts";
import type { Service } from "../processes.ts";
import { quantile } from "../statistics.ts";
import { ask, countCpu, inLanes } from "../target.ts";

export interface Background {
  readonly runsPerSecond: number;
  /** Milliseconds from the call that puts a run into the queue until its reader has seen its end. */
  readonly endedP50: number;
  readonly endedP99: number;
  /** CPU time of the server process and of PostgreSQL for one run and its reader, in microseconds. */
  readonly cpuPerRun: number;
  readonly backendCpuPerRun: number;
}

/** Background runs of 20 deltas, through the queue and the bus to their end, each in a session of its own. */
export async function background(service: Service, plan: Plan["background"]): Promise<Background> {
  await using caller = runCaller(service);
  const message = ask("deltas 20", "together");
  const times: number[] = [];
  const cpu = countCpu(service.pid);
  const began = performance.now();
  await inLanes(plan.lanes, plan.windowMs, async () => {
    const at = performance.now();
    await caller.count(await caller.start(message, true), 0n);
    times.push(performance.now() - at);
  });
  const seconds = (performance.now() - began) / 1_000;
  const used = cpu();
  return {
    runsPerSecond: times.length / seconds,
    endedP50: quantile(times, 0.5),
    endedP99: quantile(times, 0.99),
    cpuPerRun: used.server / times.length,
    backendCpuPerRun: used.backends / times.length,
  };
}
