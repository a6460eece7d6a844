import { ModelError } from "./model-error.ts";

export interface CallLimitsOptions {
  /** Calls at the same time with one key of one provider. Default 500. */
  maxCalls?: number;
  /** Calls that wait for that; one more is refused. Default 1 000. */
  maxWaiting?: number;
  /** Longest wait, in milliseconds. Default 30 000. */
  maxWaitMs?: number;
  /** Longest pause of a key that a provider has asked for, in milliseconds. Default 60 000. */
  maxPauseMs?: number;
  /** Keys that are remembered while they are paused. Default 2 000. */
  capacity?: number;
  /** Milliseconds that only rise. */
  now?: () => number;
}

/** Whose calls are counted together: a provider counts all models of a key as one. */
export interface LimitKey {
  provider: string;
  /** `platform` or the id of a tenant's own credential. */
  credentialId: string;
}

/** Leave to make one call. Leaving twice is harmless. */
export interface Place {
  leave(): void;
  /** The provider has asked for so much patience: until it is over, no call is made with this key. */
  pause(ms: number): void;
}

interface Lane {
  calls: number;
  readonly waiting: Set<PromiseWithResolvers<void>>;
  pausedUntil: number;
}

/**
 * How many calls of models a process makes at a time, and when it makes none: counted per provider and credential, so that
 * neither another provider nor a tenant with a key of its own waits for those who share the platform's. Whoever is above the
 * limit waits, in the order of coming; too many, or for too long, are refused, and the next rung of the ladder is asked.
 * A 429 with a Retry-After pauses the key and not only the call that got it: the rest would only be refused as well.
 */
export class CallLimits {
  readonly #options: Required<CallLimitsOptions>;
  readonly #lanes = new Map<string, Lane>();

  constructor(options: CallLimitsOptions = {}) {
    this.#options = {
      maxCalls: 500,
      maxWaiting: 1_000,
      maxWaitMs: 30_000,
      maxPauseMs: 60_000,
      capacity: 2_000,
      now: () => performance.now(),
      ...options,
    };
  }

  /** Calls under way and waiting, of all keys. */
  get use(): { calls: number; waiting: number } {
    const all = [...this.#lanes.values()];
    const sum = (of: (lane: Lane) => number) => all.reduce((total, lane) => total + of(lane), 0);
    return { calls: sum(({ calls }) => calls), waiting: sum(({ waiting }) => waiting.size) };
  }

  /**
   * A place for one call, at once or after a wait. Throws a ModelError: `rate_limited`, to be tried again, while the key is
   * paused; `overloaded` with the code `too_many_calls`, for the next model, where too many wait or the wait was too long.
   * Throws the signal's reason.
   */
  async enter(key: LimitKey, signal: AbortSignal): Promise<Place> {
    signal.throwIfAborted();
    const name = JSON.stringify([key.provider, key.credentialId]);
    const lane = this.#find(name);
    this.#checkPause(lane);
    if (lane.calls < this.#options.maxCalls) lane.calls++;
    else await this.#wait(name, lane, signal);
    const place = this.#placeIn(name, lane);
    try {
      // It may have been paused meanwhile.
      this.#checkPause(lane);
    } catch (error) {
      place.leave();
      throw error;
    }
    return place;
  }

  #checkPause(lane: Lane): void {
    const left = lane.pausedUntil - this.#options.now();
    if (left <= 0) return;
    throw new ModelError("rate_limited", { retryable: true, code: "key_paused", retryAfterMs: Math.ceil(left) });
  }

  /** Waits until a call that ends hands its place on. */
  async #wait(name: string, lane: Lane, signal: AbortSignal): Promise<void> {
    const { maxWaiting, maxWaitMs } = this.#options;
    const refused = () => new ModelError("overloaded", { retryable: false, code: "too_many_calls" });
    if (lane.waiting.size >= maxWaiting) throw refused();
    const turn = Promise.withResolvers<void>();
    lane.waiting.add(turn);
    const giveUp = (reason: unknown) => {
      if (lane.waiting.delete(turn)) turn.reject(reason);
    };
    const onAbort = () => giveUp(signal.reason);
    const timer = setTimeout(() => giveUp(refused()), maxWaitMs);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await turn.promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      this.#forget(name, lane);
    }
  }

  #placeIn(name: string, lane: Lane): Place {
    let left = false;
    return {
      pause: (ms) => {
        const until = this.#options.now() + Math.min(ms, this.#options.maxPauseMs);
        lane.pausedUntil = Math.max(lane.pausedUntil, until);
      },
      leave: () => {
        if (left) return;
        left = true;
        const [next] = lane.waiting;
        if (next === undefined) lane.calls--;
        else {
          lane.waiting.delete(next);
          next.resolve();
        }
        this.#forget(name, lane);
      },
    };
  }

  #find(name: string): Lane {
    let lane = this.#lanes.get(name);
    if (lane === undefined) {
      lane = { calls: 0, waiting: new Set(), pausedUntil: 0 };
      this.#lanes.set(name, lane);
      if (this.#lanes.size > this.#options.capacity) this.#sweep();
    }
    return lane;
  }

  /** A lane at rest holds nothing worth keeping. */
  #forget(name: string, lane: Lane): void {
    if (isIdle(lane) && lane.pausedUntil <= this.#options.now()) this.#lanes.delete(name);
  }

  /** Lets go of pauses that nobody has asked about, the oldest first. */
  #sweep(): void {
    for (const [name, lane] of this.#lanes) {
      if (this.#lanes.size <= this.#options.capacity) return;
      if (isIdle(lane) && lane.pausedUntil > 0) this.#lanes.delete(name);
    }
  }
}

function isIdle({ calls, waiting }: Lane): boolean {
  return calls === 0 && waiting.size === 0;
}
