import { setTimeout as sleep } from "node:timers/promises";
import type { Plan } from "../plan.ts";
import { quantile } from "../statistics.ts";
import { ask, countCpu, inLanes, type Target } from "../target.ts";

export interface Paced {
  readonly streams: number;
  /** From the request to the first text, in milliseconds; the model's own time is in it. */
  readonly firstP50: number;
  readonly firstP99: number;
  /** From the model server's write of a piece to its arrival here, in milliseconds. */
  readonly eventP50: number;
  readonly eventP99: number;
  /** CPU time of the server process for one piece, its share of the turn included, in microseconds. */
  readonly cpuPerDelta: number;
}

const STAMP = /@(\d+)@/g;

/** Streams whose pieces come one by one at a steady pace, begun one after the other. */
export async function paced({ caller, pid }: Target, plan: Plan["paced"]): Promise<Paced> {
  const message = ask(`deltas ${plan.deltas}`, `slow ${plan.paceMs}`, "stamped");
  const turnMs = plan.deltas * plan.paceMs;
  const first: number[] = [];
  const events: number[] = [];
  const cpu = countCpu(pid);
  const began = new Set<number>();
  await inLanes(plan.streams, plan.windowMs, async (lane) => {
    if (!began.has(lane)) await sleep((lane / plan.streams) * turnMs);
    began.add(lane);
    let newest = 0;
    const onChunk = (chunk: Buffer) => {
      const now = Number(process.hrtime.bigint() / 1_000n);
      // The last event repeats the whole answer: what was seen before is not counted again.
      for (const [, stamp] of chunk.toString("latin1").matchAll(STAMP)) {
        const at = Number(stamp);
        if (at <= newest) continue;
        newest = at;
        events.push((now - at) / 1_000);
      }
    };
    first.push((await caller.turn(message, { onChunk })).firstMs);
  });
  return {
    streams: plan.streams,
    firstP50: quantile(first, 0.5),
    firstP99: quantile(first, 0.99),
    eventP50: quantile(events, 0.5),
    eventP99: quantile(events, 0.99),
    cpuPerDelta: cpu().server / events.length,
  };
}
