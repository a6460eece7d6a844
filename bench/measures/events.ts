import { Retention } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { connectCaller } from "../callers/connect.ts";
import { runCaller } from "../callers/runs.ts";
import type { Plan } from "../plan.ts";
import type { Service } from "../processes.ts";
import { ask, countCpu, inLanes } from "../target.ts";

export interface Events {
  /** Durable events of one run, and what its reader is shown: mostly previews. */
  readonly durablePerRun: number;
  readonly shownPerRun: number;
  readonly durablePerSecond: number;
  readonly shownPerSecond: number;
  /** CPU time of the server process for one event that is shown, its share of the run included, in microseconds. */
  readonly cpuPerShown: number;
}

/** Between two pieces of the model: without it one read of its socket would hold many, which are shown as one event. */
const PACE_MS = 1;

/** Turns by ChatStream over Connect, in lanes; the model writes piece by piece. */
export async function events(service: Service, plan: Plan["events"]): Promise<Events> {
  await using chat = connectCaller("events", service.url, service.key);
  const message = ask(`deltas ${plan.deltas}`, `slow ${PACE_MS}`);
  const durablePerRun = await durableOf(service, message);
  let shown = 0;
  let runs = 0;
  const cpu = countCpu(service.pid);
  const began = performance.now();
  await inLanes(plan.lanes, plan.windowMs, async () => {
    const { messages = Number.NaN } = await chat.turn(message);
    shown += messages;
    runs++;
  });
  const seconds = (performance.now() - began) / 1_000;
  return {
    durablePerRun,
    shownPerRun: shown / runs,
    durablePerSecond: (durablePerRun * runs) / seconds,
    shownPerSecond: shown / seconds,
    cpuPerShown: cpu().server / shown,
  };
}

async function durableOf(service: Service, message: string): Promise<number> {
  await using caller = runCaller(service);
  let durable = 0;
  await caller.watch(await caller.start(message), 0n, ({ case: kind, value }) => {
    if (kind === "event" && value.retention === Retention.DURABLE) durable++;
    return "more";
  });
  return durable;
}
