import type { Log } from "#platform/telemetry/log.ts";

export interface RoundsOptions {
  /** Such as "eraser", for the log. */
  readonly name: string;
  readonly everyMs: number;
  readonly log: Log;
  /** One round; what it throws is logged, and tried again in the next round. */
  run(signal: AbortSignal): Promise<void>;
}

/** Up to so much of the time between two rounds is left out, so that replicas that start together do not work together. */
const JITTER = 0.1;

/** A job that every replica runs again and again, one round at a time. */
export class Rounds {
  readonly #options: RoundsOptions;
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;
  #again = false;

  constructor(options: RoundsOptions) {
    this.#options = options;
  }

  /** The first round comes when the time between two has passed. */
  start(): void {
    this.#wait();
  }

  /** A round now; while one is under way, another one behind it. */
  wake(): void {
    if (this.#stopped.signal.aborted) return;
    if (this.#working !== undefined) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#working = this.#round().finally(() => {
      this.#working = undefined;
      const again = this.#again;
      this.#again = false;
      if (again) this.wake();
      else this.#wait();
    });
  }

  /** Resolves when the round under way has ended. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    clearTimeout(this.#timer);
    await this.#working;
  }

  #wait(): void {
    if (this.#stopped.signal.aborted) return;
    const ms = this.#options.everyMs * (1 - JITTER * Math.random());
    this.#timer = setTimeout(() => this.wake(), ms);
  }

  async #round(): Promise<void> {
    const { name, log, run } = this.#options;
    try {
      await run(this.#stopped.signal);
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      log.warn(
        { event: "agent.clean_up_failed", resource: name, err: error },
        "the clean-up goes on in its next round",
      );
    }
  }
}
