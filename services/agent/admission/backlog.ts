/** Weight of the newest duration in the average. */
const ALPHA = 0.1;
const MIN_MS = 1_000;
const MAX_MS = 60_000;
/** Queues whose promises are remembered. */
const MAX_QUEUES = 1_000;

/** A queue that takes nobody more. */
export interface FullQueue {
  /** Tells it from others. */
  readonly name: string;
  /** Runs that wait in it. */
  readonly waiting: number;
  /** Runs of it that work at the same time. */
  readonly width: number;
}

/** When those who are refused are likely to be served, from how long runs took. */
export class Backlog {
  #averageMs: number | undefined;
  /** Until when the room of a queue is promised to those who were refused, by its name; `performance.now()`. */
  readonly #promised = new Map<string, number>();

  ended(durationMs: number): void {
    this.#averageMs =
      this.#averageMs === undefined ? durationMs : this.#averageMs + ALPHA * (durationMs - this.#averageMs);
  }

  /**
   * Between one second and one minute. Each is told a later time than who was refused before, so that they come back one
   * by one, as runs end, and a thousand callers of one tenant do not keep the servers busy with refusals.
   */
  retryAfterMs({ name, waiting, width }: FullQueue, now = performance.now()): number {
    const perRun = (this.#averageMs ?? MIN_MS) / width;
    const served = now + perRun * (waiting + 1);
    const turn = Math.min(now + MAX_MS, Math.max(served, (this.#promised.get(name) ?? 0) + perRun));
    this.#promised.delete(name);
    this.#promised.set(name, turn);
    const [oldest] = this.#promised.keys();
    if (oldest !== undefined && this.#promised.size > MAX_QUEUES) this.#promised.delete(oldest);
    return Math.round(Math.max(MIN_MS, turn - now));
  }
}
