import { randomInt } from "node:crypto";

export interface BreakerOptions {
  /** Calls are judged over this time. */
  readonly windowMs: number;
  /** Fewer calls in the window than this are no evidence. */
  readonly minCalls: number;
  /** It opens when this share of them failed. */
  readonly failureShare: number;
  /** Time until the first probe; doubled by every failed one, to at most `maxOpenMs`; ± 20 %. */
  readonly openMs: number;
  readonly maxOpenMs: number;
  /** Calls let through when half open; all must succeed. */
  readonly probes: number;
  /** A probe without a verdict after this gives its place to another. */
  readonly probeTimeoutMs: number;
}

export const BREAKER: BreakerOptions = {
  windowMs: 10_000,
  minCalls: 20,
  failureShare: 0.5,
  openMs: 1_000,
  maxOpenMs: 15_000,
  probes: 3,
  probeTimeoutMs: 10_000,
};

/** A call that was let through. At most one of the three is to be said, once. */
export interface Permit {
  succeeded(): void;
  failed(): void;
  /** The call ended without saying anything of the callee: its caller left. */
  unknown(): void;
}

export type BreakerState = "closed" | "open" | "half open";

const SLOTS = 10;
/** A permit that has been settled. */
export const SPENT: Permit = { succeeded() {}, failed() {}, unknown() {} };

/**
 * A circuit breaker over the share of failed calls in a sliding window. Half open it lets a bounded number of probes
 * through and refuses the rest at once. What was begun before a change of state says nothing after it.
 */
export class Breaker {
  readonly #options: BreakerOptions;
  readonly #now: () => number;
  readonly #slots = Array.from({ length: SLOTS }, () => ({ epoch: -1, calls: 0, failures: 0 }));
  #state: BreakerState = "closed";
  /** Counts the changes of state; a permit of an earlier era is void. */
  #era = 0;
  #openings = 0;
  #probeAt = 0;
  #probing = 0;
  #proved = 0;

  constructor(options: Partial<BreakerOptions> = {}, now: () => number = () => performance.now()) {
    this.#options = { ...BREAKER, ...options };
    this.#now = now;
  }

  get state(): BreakerState {
    return this.#state;
  }

  /** Lets a call through; or answers the ms after which to try again. */
  enter(): Permit | number {
    const now = this.#now();
    if (this.#state === "closed") return this.#counted(this.#era);
    if (this.#state === "open") {
      if (now < this.#probeAt) return Math.ceil(this.#probeAt - now);
      this.#halfOpen(now);
    } else if (this.#probing + this.#proved >= this.#options.probes) {
      if (now < this.#probeAt) return Math.ceil(Math.min(this.#options.openMs, this.#probeAt - now));
      this.#halfOpen(now);
    }
    this.#probing += 1;
    return this.#probe(this.#era);
  }

  #counted(era: number): Permit {
    const count = (failures: number) => {
      if (era === this.#era) this.#count(failures);
    };
    return { ...SPENT, succeeded: () => count(0), failed: () => count(1) };
  }

  #probe(era: number): Permit {
    const ended = (then: () => void) => () => {
      if (era !== this.#era) return;
      this.#probing -= 1;
      then();
    };
    return {
      succeeded: ended(() => {
        this.#proved += 1;
        if (this.#proved >= this.#options.probes) this.#close();
      }),
      failed: ended(() => this.#open()),
      unknown: ended(() => {}),
    };
  }

  #count(failures: number): void {
    const epoch = Math.floor((this.#now() * SLOTS) / this.#options.windowMs);
    const slot = this.#slots[epoch % SLOTS];
    if (slot === undefined) return;
    if (slot.epoch !== epoch) Object.assign(slot, { epoch, calls: 0, failures: 0 });
    slot.calls += 1;
    slot.failures += failures;
    if (failures === 0) return;
    const recent = this.#slots.filter((one) => one.epoch > epoch - SLOTS);
    const calls = recent.reduce((sum, one) => sum + one.calls, 0);
    const failed = recent.reduce((sum, one) => sum + one.failures, 0);
    if (calls >= this.#options.minCalls && failed >= calls * this.#options.failureShare) this.#open();
  }

  #open(): void {
    const { openMs, maxOpenMs } = this.#options;
    this.#become("open");
    this.#probeAt = this.#now() + jittered(Math.min(maxOpenMs, openMs * 2 ** this.#openings));
    this.#openings += 1;
  }

  #halfOpen(now: number): void {
    this.#become("half open");
    this.#probeAt = now + this.#options.probeTimeoutMs;
    this.#probing = 0;
    this.#proved = 0;
  }

  #close(): void {
    this.#become("closed");
    this.#openings = 0;
    for (const slot of this.#slots) slot.epoch = -1;
  }

  #become(state: BreakerState): void {
    this.#state = state;
    this.#era += 1;
  }
}

/** `ms` ± 20 %, so that processes that broke off together do not come back together. */
export function jittered(ms: number): number {
  return (ms * randomInt(80, 121)) / 100;
}
