import { runCaller } from "../callers/runs.ts";
import type { Plan } from "../plan.ts";
import type { Service } from "../processes.ts";
import { quantile } from "../statistics.ts";
import { ask } from "../target.ts";

export interface Resume {
  /** Events that the reader has missed. */
  readonly missed: number;
  /** Milliseconds from the call to the first of them, and to caught_up. */
  readonly firstP50: number;
  readonly firstP99: number;
  readonly caughtUpP50: number;
  readonly caughtUpP99: number;
}

/** Runs that a reader comes back to. */
export const RESUMED = {
  ended: "a turn that has ended",
  long: "a run of many steps that has ended",
  live: "a run that goes on",
} as const;

export type Resumed = keyof typeof RESUMED;

/** Longer than any measurement; the run ends with the process. */
const LIVE = ask("deltas 1000", "slow 1000");

/**
 * StreamRunEvents with the number of the first event, one reader after the other. Of a live run the reader leaves when it
 * has caught up; of one that has ended it reads to the end.
 */
export async function resume(
  service: Service,
  { calls }: Plan["resume"],
): Promise<{ readonly run: Resumed; readonly result: Resume }[]> {
  await using caller = runCaller(service);
  const read = (runId: string, afterSeq: bigint) => readBack(caller, runId, afterSeq);
  const ended = await caller.start(ask("deltas 20", "together"));
  const long = await caller.start(ask("loop:current_time {}"));
  const live = await caller.start(LIVE);
  for (const run of [ended, long]) await caller.count(run, 0n);
  const times: Record<Resumed, Awaited<ReturnType<typeof read>>[]> = { ended: [], long: [], live: [] };
  for (let i = 0; i < calls; i++) {
    times.ended.push(await read(ended, 1n));
    times.long.push(await read(long, 1n));
    times.live.push(await read(live, 1n));
  }
  return (Object.keys(RESUMED) as Resumed[]).map((run) => {
    const first = times[run].map(({ firstMs }) => firstMs);
    const caughtUp = times[run].map(({ caughtUpMs }) => caughtUpMs);
    return {
      run,
      result: {
        missed: times[run].at(-1)?.missed ?? Number.NaN,
        firstP50: quantile(first, 0.5),
        firstP99: quantile(first, 0.99),
        caughtUpP50: quantile(caughtUp, 0.5),
        caughtUpP99: quantile(caughtUp, 0.99),
      },
    };
  });
}

async function readBack({ watch }: ReturnType<typeof runCaller>, runId: string, afterSeq: bigint) {
  const began = performance.now();
  let firstMs = Number.NaN;
  let caughtUpMs = Number.NaN;
  let missed = 0;
  await watch(runId, afterSeq, (frame) => {
    if (frame.case === "event" && Number.isNaN(caughtUpMs)) {
      if (missed++ === 0) firstMs = performance.now() - began;
    }
    if (frame.case !== "caughtUp") return "more";
    caughtUpMs = performance.now() - began;
    return "enough";
  });
  return { firstMs, caughtUpMs, missed };
}
