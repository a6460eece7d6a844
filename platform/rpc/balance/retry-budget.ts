export interface RetryBudgetOptions {
  /** Retries per call, over time. */
  readonly ratio: number;
  /** Retries that may be made at once. */
  readonly burst: number;
}

/** Envoy's retry budget: 20 % of calls; and a few at once, so that a quiet process may retry too. */
export const RETRY_BUDGET: RetryBudgetOptions = { ratio: 0.2, burst: 20 };

/** A token bucket that calls fill and retries empty: an outage costs its callee at most `ratio` more calls. */
export class RetryBudget {
  readonly #options: RetryBudgetOptions;
  #tokens: number;

  constructor(options: RetryBudgetOptions = RETRY_BUDGET) {
    this.#options = options;
    this.#tokens = options.burst;
  }

  /** Notes a call, before it is sent. */
  called(): void {
    this.#tokens = Math.min(this.#options.burst, this.#tokens + this.#options.ratio);
  }

  /** Whether one more retry may be made now; if so, it is taken. */
  take(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
