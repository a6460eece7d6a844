import type { Log } from "#platform/telemetry/log.ts";

/** What is kept for a time only. */
export interface Kept {
  /** Such as "outputs". */
  readonly name: string;
  readonly store: { deleteOlderThan(ageMs: number, signal: AbortSignal): Promise<number> };
  readonly retentionMs: number;
}

export interface SweeperOptions {
  readonly kept: readonly Kept[];
  readonly everyMs: number;
  readonly log: Log;
}

/** Removes what is past its time. Every replica runs one; what one has removed the others do not find. */
export class Sweeper {
  readonly #options: SweeperOptions;
  readonly #stopped = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    const round = () => {
      this.#working ??= this.#sweep().finally(() => {
        this.#working = undefined;
      });
    };
    this.#timer = setInterval(round, this.#options.everyMs);
    round();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopped.abort();
    await this.#working;
  }

  /** What fails now is tried again in the next round. */
  async #sweep(): Promise<void> {
    const { kept, log } = this.#options;
    const { signal } = this.#stopped;
    for (const { name, store, retentionMs } of kept) {
      try {
        const count = await store.deleteOlderThan(retentionMs, signal);
        if (count > 0) log.info({ event: `tool.${name}_removed`, count }, `${name} past their time: removed`);
      } catch (error) {
        if (signal.aborted) return;
        log.warn({ event: "tool.sweep_failed", resource: name, err: error }, `${name} past their time: not removed`);
      }
    }
  }
}
