import { setTimeout as sleep } from "node:timers/promises";
import type { Plan } from "../plan.ts";
import { residentKib } from "../proc-stat.ts";
import { ask, inLanes, type Target } from "../target.ts";

export interface OpenStreams {
  readonly streams: number;
  /** Resident memory after some turns and a collection, before any of them was open, in KiB. */
  readonly baseKib: number;
  /** What each of them adds, after a collection, in KiB. */
  readonly kibPerStream: number;
}

const WARM_TURNS_MS = 1_500;
const LANES = 16;
const OPENING_MS = 1_500;
const SETTLE_MS = 1_500;
/** How long all of them may take to show something. */
const SHOWN_WITHIN_MS = 60_000;

/** Memory of a fresh process while slow streams are open. They are broken off at the end; the process is of no use then. */
export async function openStreams(
  { caller, pid }: Target,
  { streams }: Plan["open"],
  collect: () => Promise<void>,
  hurry = false,
): Promise<OpenStreams> {
  const wait = (ms: number) => sleep(hurry ? ms / 50 : ms);
  const resident = async () => {
    await wait(SETTLE_MS);
    await collect();
    return residentKib(pid);
  };
  await inLanes(LANES, hurry ? 1 : WARM_TURNS_MS, async () => void (await caller.turn(ask("deltas 20", "together"))));
  const baseKib = await resident();
  const leaving = new AbortController();
  const options = { signal: leaving.signal, cancelOnDisconnect: true };
  let failed: unknown;
  const shown = new Set<number>();
  const open = Array.from({ length: streams }, async (_, i) => {
    await wait((i / streams) * OPENING_MS);
    const onChunk = () => void shown.add(i);
    await caller.turn(ask("deltas 100", "slow 1000"), { ...options, onChunk }).catch((error) => {
      if (!leaving.signal.aborted) failed ??= error;
    });
  });
  await wait(OPENING_MS);
  // One that has shown nothing yet is not open: its run waits, or has not begun.
  for (const until = performance.now() + SHOWN_WITHIN_MS; shown.size < streams && failed === undefined; ) {
    if (performance.now() > until) throw new Error(`only ${shown.size} of ${streams} streams have shown something`);
    await sleep(100);
  }
  const kib = await resident();
  leaving.abort();
  await Promise.all(open);
  if (failed !== undefined) throw failed;
  return { streams, baseKib, kibPerStream: (kib - baseKib) / streams };
}
