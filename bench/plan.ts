import type { TargetName } from "./target.ts";

/** How much one run of the bench measures. */
export interface Plan {
  readonly name: "full" | "quick" | "smoke";
  /** Alternating rounds: each measures every target once, so that what drifts on the machine hits all alike. */
  readonly rounds: number;
  readonly deltas: readonly number[];
  readonly concurrency: readonly number[];
  /** Unmeasured turns of each target before the first round, so that its code is compiled. */
  readonly warmUpTurns: number;
  /** One measurement of throughput, in milliseconds. */
  readonly windowMs: number;
  /** Streams whose pieces come one by one. */
  readonly paced: {
    readonly streams: number;
    readonly deltas: number;
    readonly paceMs: number;
    readonly windowMs: number;
  };
  /** Slow streams that are open at once while memory is read; each process of this part is a fresh one. */
  readonly open: { readonly streams: number; readonly samples: number; readonly targets: readonly TargetName[] };
  readonly creates: {
    /** Unmeasured runs before the first window. */
    readonly warmUp: number;
    readonly concurrency: number;
    readonly windows: number;
    readonly windowMs: number;
  };
  /** Calls of each face, one after the other, in each round. */
  readonly unaryCalls: number;
  /** Runs whose events are counted, in each round; their model writes piece by piece. */
  readonly events: { readonly lanes: number; readonly deltas: number; readonly windowMs: number };
  /** Background runs that are begun and waited for, in each round. */
  readonly background: { readonly lanes: number; readonly windowMs: number };
  /** Readers that come back to each kind of run, one after the other, in each round. */
  readonly resume: { readonly calls: number };
  /** Runs of each kind whose rows are weighed, once. */
  readonly stored: { readonly runs: number };
  /** Pin the servers to core 0 and all else to core 1. */
  readonly pin: boolean;
}

const FULL: Plan = {
  name: "full",
  rounds: 5,
  deltas: [20, 200],
  concurrency: [1, 16, 128],
  warmUpTurns: 4_000,
  windowMs: 2_500,
  paced: { streams: 50, deltas: 50, paceMs: 20, windowMs: 5_000 },
  open: { streams: 500, samples: 3, targets: ["relay", "grpc", "connect", "sse"] },
  creates: { warmUp: 4_000, concurrency: 16, windows: 5, windowMs: 1_500 },
  unaryCalls: 500,
  events: { lanes: 16, deltas: 200, windowMs: 2_500 },
  background: { lanes: 16, windowMs: 2_500 },
  resume: { calls: 200 },
  stored: { runs: 1_000 },
  pin: true,
};

/** The short form: fewer and shorter measurements of the same things. */
const QUICK: Plan = {
  ...FULL,
  name: "quick",
  rounds: 3,
  warmUpTurns: 1_000,
  windowMs: 700,
  paced: { ...FULL.paced, windowMs: 1_200 },
  open: { ...FULL.open, streams: 300, samples: 1 },
  creates: { warmUp: 1_000, concurrency: 16, windows: 3, windowMs: 1_000 },
  unaryCalls: 200,
  events: { ...FULL.events, windowMs: 1_000 },
  background: { ...FULL.background, windowMs: 1_000 },
  resume: { calls: 100 },
  stored: { runs: 300 },
};

/** Only shows that everything runs; its figures mean nothing. */
const SMOKE: Plan = {
  name: "smoke",
  rounds: 1,
  deltas: [3],
  concurrency: [2],
  warmUpTurns: 2,
  windowMs: 50,
  paced: { streams: 2, deltas: 2, paceMs: 5, windowMs: 50 },
  open: { streams: 4, samples: 1, targets: ["relay"] },
  creates: { warmUp: 2, concurrency: 2, windows: 1, windowMs: 50 },
  unaryCalls: 3,
  events: { lanes: 2, deltas: 3, windowMs: 50 },
  background: { lanes: 2, windowMs: 50 },
  resume: { calls: 2 },
  stored: { runs: 3 },
  pin: false,
};

export const PLANS = { full: FULL, quick: QUICK, smoke: SMOKE };
