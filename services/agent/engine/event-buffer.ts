import type { EngineEvent } from "./events.ts";

/** Events of things that run at the same time, for one reader. */
export class EventBuffer {
  #events: EngineEvent[] = [];
  #wake: (() => void) | undefined;

  push(event: EngineEvent): void {
    this.#events.push(event);
    this.wake();
  }

  get size(): number {
    return this.#events.length;
  }

  /** Makes the reader look again. */
  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  /** What came since the last look; waits until there is something or {@link wake} is called. */
  async take(): Promise<EngineEvent[]> {
    if (this.#events.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    const events = this.#events;
    this.#events = [];
    return events;
  }
}
