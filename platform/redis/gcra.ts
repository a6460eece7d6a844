import { MAX_RATE, type Take, type Taken } from "./limiter.ts";

/**
 * The generic cell rate algorithm (ITU-T I.371) in whole microseconds. A bucket is one time, until which its units are
 * spent; taking moves it on by `cost` intervals, and it may be at most `burst` intervals ahead of now.
 */
export interface Cells {
  /** Time in which one unit comes back, in µs. */
  readonly interval: number;
  readonly cost: number;
  /** `burst` intervals, in µs. */
  readonly tolerance: number;
}

/** Throws a RangeError for figures that make no sense. */
export function cellsOf({ tenantId, key, cost = 1, rate, burst }: Take): Cells {
  if (!(rate > 0 && rate <= MAX_RATE)) throw new RangeError(`the rate has to be above 0 and at most ${MAX_RATE}`);
  if (!Number.isInteger(cost) || cost < 0) throw new RangeError("the cost has to be a whole number, 0 or more");
  if (!Number.isInteger(burst) || burst < Math.max(cost, 1)) {
    throw new RangeError("the burst has to be a whole number, at least the cost and at least 1");
  }
  // Neither may close the hash tag of a Redis key.
  if (!/^[\w-]{1,100}$/.test(tenantId)) throw new RangeError("that is no tenant");
  if (key.length < 1 || key.length > 200) throw new RangeError("the key has to have 1 to 200 characters");
  const interval = Math.ceil(1_000_000 / rate);
  return { interval, cost, tolerance: burst * interval };
}

/** The limit of one of `replicas` processes. */
export function partOf(cells: Cells, replicas: number): Cells {
  const interval = cells.interval * replicas;
  // At least one call at a time, or a small limit would be none at all.
  return { interval, cost: cells.cost, tolerance: Math.max(cells.tolerance, Math.max(cells.cost, 1) * interval) };
}

/** How far ahead of `now` a bucket is; never further than it may be, whatever clocks and limits did since. */
export function backlogOf(spentUntil: number | undefined, now: number, { tolerance }: Cells): number {
  return Math.min(Math.max((spentUntil ?? now) - now, 0), tolerance);
}

export function allows(backlog: number, { cost, interval, tolerance }: Cells): boolean {
  return backlog + Math.max(cost, 1) * interval <= tolerance;
}

/** @param backlog before the take */
export function takenOf(backlog: number, allowed: boolean, charged: boolean, cells: Cells): Taken {
  const { cost, interval, tolerance } = cells;
  const after = charged ? backlog + cost * interval : backlog;
  return {
    allowed,
    remaining: Math.floor((tolerance - after) / interval),
    resetMs: Math.ceil(after / 1000),
    retryAfterMs: allowed ? 0 : Math.ceil((backlog + Math.max(cost, 1) * interval - tolerance) / 1000),
  };
}
