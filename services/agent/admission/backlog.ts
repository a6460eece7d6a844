/** Weight of the newest duration in the average. */
const ALPHA = 0.1;
const MIN_MS = 1_000;
const MAX_MS = 60_000;

/** How long whoever comes now is likely to wait, from how long runs took. */
export class Backlog {
  readonly #maxRuns: number;
  #averageMs: number | undefined;

  constructor(maxRuns: number) {
    this.#maxRuns = maxRuns;
  }

  ended(durationMs: number): void {
    this.#averageMs =
      this.#averageMs === undefined ? durationMs : this.#averageMs + ALPHA * (durationMs - this.#averageMs);
  }

  /** Between one second and one minute. */
  retryAfterMs(waiting: number): number {
    const wait = ((this.#averageMs ?? MIN_MS) * (waiting + 1)) / this.#maxRuns;
    return Math.round(Math.min(MAX_MS, Math.max(MIN_MS, wait)));
  }
}
