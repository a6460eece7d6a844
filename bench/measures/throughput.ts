import { quantile } from "../statistics.ts";
import { ask, countCpu, inLanes, type Target } from "../target.ts";

export interface Throughput {
  readonly turnsPerSecond: number;
  /** CPU time of the server process for one turn, in microseconds. */
  readonly cpuPerTurn: number;
  /** The same of its backends (PostgreSQL). */
  readonly backendCpuPerTurn: number;
  /** From the request to the first text, in milliseconds. */
  readonly firstP50: number;
  readonly firstP99: number;
}

/**
 * Turns one after the other in `concurrency` lanes. The model server sends each answer in one write: written piece by
 * piece it would be slower than what is measured.
 */
export async function throughput(
  { caller, pid }: Target,
  deltas: number,
  concurrency: number,
  windowMs: number,
): Promise<Throughput> {
  const message = ask(`deltas ${deltas}`, "together");
  const first: number[] = [];
  const cpu = countCpu(pid);
  const began = performance.now();
  // What is counted at the end belongs to the turns of the window, since every lane ends its last turn first.
  await inLanes(concurrency, windowMs, async () => void first.push((await caller.turn(message)).firstMs));
  const seconds = (performance.now() - began) / 1_000;
  const used = cpu();
  return {
    turnsPerSecond: first.length / seconds,
    cpuPerTurn: used.server / first.length,
    backendCpuPerTurn: used.backends / first.length,
    firstP50: quantile(first, 0.5),
    firstP99: quantile(first, 0.99),
  };
}
