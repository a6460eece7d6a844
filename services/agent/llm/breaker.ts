import { ModelError } from "./model-error.ts";

export interface BreakerOptions {
  /** Failures in a row that open a breaker. Default 5. */
  failures?: number;
  /** How long it stays open, in milliseconds. Default 30 000. */
  openMs?: number;
  /** Calls at a time when half open. Default 3. */
  probes?: number;
  /** Successes that close it again. Default 3. */
  successes?: number;
  /** Breakers kept; beyond that the one that was used least recently is forgotten. Default 2 000. */
  capacity?: number;
  /** Milliseconds that only rise. */
  now?: () => number;
  /** Told of each change of state. */
  onChange?: (breaker: BreakerReport, before: BreakerState) => void;
}

export type BreakerState = "closed" | "open" | "half_open";

/** Whose calls a breaker judges. */
export interface BreakerKey {
  provider: string;
  model: string;
  /** `platform` or the id of a tenant's own credential. */
  credentialId: string;
}

export interface BreakerReport extends BreakerKey {
  state: BreakerState;
}

interface Breaker {
  readonly key: BreakerKey;
  state: BreakerState;
  failures: number;
  successes: number;
  probing: number;
  openUntil: number;
  /** Counts the changes of state: what was begun before one says nothing after it. */
  era: number;
}

/** What a call says of the provider. */
export type Verdict = "succeeded" | "failed" | "unknown";

/** The breakers of a process, one per provider, model and credential. */
export class Breakers {
  readonly #options: Required<Omit<BreakerOptions, "onChange">> & Pick<BreakerOptions, "onChange">;
  readonly #all = new Map<string, Breaker>();

  constructor(options: BreakerOptions = {}) {
    this.#options = {
      failures: 5,
      openMs: 30_000,
      probes: 3,
      successes: 3,
      capacity: 2_000,
      now: () => performance.now(),
      ...options,
    };
  }

  /** The breakers that are not at rest. One whose time is over lets the next call through: it is half open. */
  states(): BreakerReport[] {
    const now = this.#options.now();
    const reports = Array.from(this.#all.values(), ({ key, state, openUntil }): BreakerReport => {
      return { ...key, state: state === "open" && openUntil <= now ? "half_open" : state };
    });
    return reports.filter(({ state }) => state !== "closed");
  }

  /** Lets a call through and gives the function to settle it with, once; or throws the ModelError of an open breaker. */
  enter(key: BreakerKey): (verdict: Verdict) => void {
    const breaker = this.#find(key);
    const { now, probes } = this.#options;
    const left = breaker.openUntil - now();
    if (breaker.state === "open" && left <= 0) this.#turn(breaker, "half_open");
    if (breaker.state === "open" || (breaker.state === "half_open" && breaker.probing >= probes)) {
      const retryAfterMs = Math.max(0, Math.ceil(left));
      throw new ModelError("overloaded", { retryable: false, code: "breaker_open", retryAfterMs });
    }
    breaker.probing += 1;
    const { era } = breaker;
    let settled = false;
    return (verdict) => {
      if (settled || breaker.era !== era) return;
      settled = true;
      breaker.probing -= 1;
      this.#judge(breaker, verdict);
    };
  }

  #judge(breaker: Breaker, verdict: Verdict): void {
    if (verdict === "succeeded") {
      breaker.failures = 0;
      breaker.successes += 1;
      if (breaker.state === "half_open" && breaker.successes >= this.#options.successes) this.#turn(breaker, "closed");
    } else if (verdict === "failed") {
      breaker.failures += 1;
      if (breaker.state === "half_open" || breaker.failures >= this.#options.failures) this.#turn(breaker, "open");
    }
  }

  #turn(breaker: Breaker, state: BreakerState): void {
    const before = breaker.state;
    breaker.state = state;
    breaker.era += 1;
    breaker.failures = 0;
    breaker.successes = 0;
    breaker.probing = 0;
    if (state === "open") breaker.openUntil = this.#options.now() + this.#options.openMs;
    this.#options.onChange?.({ ...breaker.key, state }, before);
  }

  #find(key: BreakerKey): Breaker {
    const name = JSON.stringify([key.provider, key.model, key.credentialId]);
    let breaker = this.#all.get(name);
    if (breaker === undefined) {
      const { provider, model, credentialId } = key;
      breaker = {
        key: { provider, model, credentialId },
        state: "closed",
        failures: 0,
        successes: 0,
        probing: 0,
        openUntil: 0,
        era: 0,
      };
    }
    this.#all.delete(name);
    this.#all.set(name, breaker);
    if (this.#all.size > this.#options.capacity) this.#forgetOldest();
    return breaker;
  }

  #forgetOldest(): void {
    const [name, breaker] = this.#all.entries().next().value as [string, Breaker];
    this.#all.delete(name);
    if (breaker.state !== "closed") this.#options.onChange?.({ ...breaker.key, state: "closed" }, breaker.state);
  }
}
