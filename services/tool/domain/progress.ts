import { cutText } from "./tool-result.ts";

/** A sign of life of a running tool. */
export interface Progress {
  readonly message: string;
  /** 0 to 1; 0 when unknown. */
  readonly fraction: number;
}

const MAX_MESSAGE_BYTES = 1_000;

/** Holds the newest progress of a call until somebody takes it, so that a slow reader costs no memory. */
export class LatestProgress {
  #latest: Progress | undefined;
  #wake: (() => void) | undefined;
  #ended = false;

  /** Never throws, whatever a tool hands over. */
  set(message: unknown, fraction: unknown = 0): void {
    if (this.#ended) return;
    const share = typeof fraction === "number" && Number.isFinite(fraction) ? Math.min(1, Math.max(0, fraction)) : 0;
    this.#latest = { message: cutText(String(message), MAX_MESSAGE_BYTES).text, fraction: share };
    this.#wake?.();
  }

  /** The call is over; what comes now is dropped. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** The newest progress that was not taken, or undefined after the end. */
  async take(): Promise<Progress | undefined> {
    while (this.#latest === undefined && !this.#ended) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
    const latest = this.#latest;
    this.#latest = undefined;
    return latest;
  }
}
