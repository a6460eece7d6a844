export interface PatienceConfig {
  /** So many failures in a row end it. */
  failures: number;
  /** How long nothing is tried then; after that one attempt shows whether it is better. */
  restMs: number;
  /** A monotonic clock in milliseconds. */
  now?: (() => number) | undefined;
}

/** Stops asking something that keeps failing: its callers would each wait for a timeout. */
export class Patience {
  readonly #failures: number;
  readonly #restMs: number;
  readonly #now: () => number;
  #inARow = 0;
  #nextTry = 0;

  constructor({ failures, restMs, now = () => performance.now() }: PatienceConfig) {
    this.#failures = failures;
    this.#restMs = restMs;
    this.#now = now;
  }

  /** Whether to try now. */
  admit(): boolean {
    if (this.#inARow < this.#failures) return true;
    if (this.#now() < this.#nextTry) return false;
    this.#nextTry = this.#now() + this.#restMs;
    return true;
  }

  succeeded(): void {
    this.#inARow = 0;
  }

  failed(): void {
    this.#inARow += 1;
    if (this.#inARow >= this.#failures) this.#nextTry = this.#now() + this.#restMs;
  }
}
