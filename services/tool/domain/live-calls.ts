import { abortable } from "#platform/abortable.ts";

/** A call that this process works on. */
export class LiveCall {
  readonly digest: Uint8Array;
  readonly #stop = new AbortController();
  readonly #ended = Promise.withResolvers<void>();
  #followers = 0;

  constructor(digest: Uint8Array) {
    this.digest = digest;
  }

  /** Fires when the last of those who wait for the call has left. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Waits for it until the signal fires. */
  follow(signal: AbortSignal): void {
    this.#followers++;
    const leave = () => --this.#followers === 0 && this.#stop.abort(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
  }

  end(): void {
    this.#ended.resolve();
  }
}

/** The calls that this process works on, by key: one attempt of a call at a time. */
export class LiveCalls {
  readonly #live = new Map<string, LiveCall>();

  /**
   * Takes the key once nobody here has it; until then it keeps the call alive that has. Rejects with the signal's reason,
   * and with what `otherwise` throws for a key that is in use for another digest. The signal has to fire in the end.
   */
  async enter(key: string, digest: Buffer, signal: AbortSignal, otherwise: () => never): Promise<LiveCall> {
    for (;;) {
      signal.throwIfAborted();
      const live = this.#live.get(key);
      if (live === undefined) break;
      if (!digest.equals(live.digest)) otherwise();
      live.follow(signal);
      await abortable(live.ended, signal);
    }
    const mine = new LiveCall(digest);
    this.#live.set(key, mine);
    mine.follow(signal);
    return mine;
  }

  /** Gives the key back. */
  leave(key: string, call: LiveCall): void {
    if (this.#live.get(key) === call) this.#live.delete(key);
    call.end();
  }
}
