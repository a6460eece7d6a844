import { abortable } from "../abortable.ts";

/** At most so many holders at once; others wait their turn, at most so many. */
export class Slots {
  readonly #maxWaiting: number;
  readonly #full: () => Error;
  readonly #waiting = new Set<() => void>();
  #free: number;

  /** `full` makes the error for a caller who finds `maxWaiting` others waiting. */
  constructor(slots: number, maxWaiting: number, full: () => Error) {
    this.#free = slots;
    this.#maxWaiting = maxWaiting;
    this.#full = full;
  }

  /** Resolves with the function that gives the slot back; call it once. */
  async acquire(signal?: AbortSignal): Promise<() => void> {
    if (this.#free > 0) {
      this.#free -= 1;
    } else {
      if (this.#waiting.size >= this.#maxWaiting) throw this.#full();
      await this.#turn(signal);
    }
    return () => this.#release();
  }

  async #turn(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    try {
      await abortable(promise, signal);
    } catch (reason) {
      // Given a slot and aborted in the same moment: hand it on.
      if (!this.#waiting.delete(resolve)) this.#release();
      throw reason;
    }
  }

  /** A slot goes from hand to hand while someone waits. */
  #release(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#free += 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}
