const ROOM_MS = 1_000;
/** Shorter than the wait of its tenant: when that is over, the oldest run is due. */
const ASIDE_MS = 200;
/** After the first, second, … failure for a reason inside the server; the last one repeats. */
const FAILURE_MS = [1_000, 5_000, 15_000, 60_000] as const;
const PASSING_MIN_MS = 1_000;
const PASSING_MAX_MS = 60_000;

/** Milliseconds, spread by half in both directions, so that what was put off together does not come back together. */
function spread(ms: number): number {
  return Math.round(ms * (0.5 + Math.random()));
}

/** Before a run is due again for which there was no room. */
export function aside(): number {
  return spread(ASIDE_MS);
}

/** Before runs are tried again of a tenant for which there was no room. */
export function untilRoom(): number {
  return spread(ROOM_MS);
}

/** Before a run is tried again that failed so many times. */
export function afterFailure(attempts: number): number {
  return spread(FAILURE_MS[Math.min(attempts, FAILURE_MS.length) - 1] ?? PASSING_MAX_MS);
}

/** Before a run is tried again for which something was away: half as long as it has waited so far, so that waits double. */
export function untilPassed(queuedAt: Date, now = Date.now()): number {
  return spread(Math.min(PASSING_MAX_MS, Math.max(PASSING_MIN_MS, (now - queuedAt.getTime()) / 2)));
}
