import type { Bus, BusMessage } from "#platform/bus/bus.ts";

/**
 * Wake-ups of one run from the bus, for one reader. They are hints: one may be lost, and then the wait ends by its time.
 * While the bus is away there are none.
 */
export class RunHint implements Disposable {
  readonly #listening: Promise<{ unsubscribe(): Promise<void> } | undefined>;
  #hinted = false;
  #wake: (() => void) | undefined;

  constructor(bus: Bus, subject: string, onMessage: (message: BusMessage) => void = () => {}) {
    const hear = (message: BusMessage) => {
      this.#hinted = true;
      this.#wake?.();
      onMessage(message);
    };
    // Not awaited: a bus that is away must not keep the reader from looking.
    this.#listening = bus.listen(subject, hear).catch(() => undefined);
  }

  /** Resolves at a hint, also one that came before, when the signal aborts, or after `ms`. */
  async wait(signal: AbortSignal, ms: number): Promise<void> {
    if (!this.#hinted && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const finish = () => {
          clearTimeout(timer);
          signal.removeEventListener("abort", finish);
          this.#wake = undefined;
          resolve();
        };
        const timer = setTimeout(finish, ms);
        signal.addEventListener("abort", finish, { once: true });
        this.#wake = finish;
      });
    }
    this.#hinted = false;
  }

  [Symbol.dispose](): void {
    void this.#listening.then((subscription) => subscription?.unsubscribe()).catch(() => {});
  }
}
