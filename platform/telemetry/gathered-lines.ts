import type { LogDestination } from "./log.ts";

export interface GatheredLinesOptions {
  /** Longest time that a line waits, in milliseconds. */
  readonly forMs: number;
  /** Characters above which nothing waits. */
  readonly upTo: number;
}

/**
 * Lines on their way to a destination whose every write costs a system call: those of a moment go out in one write. What
 * must not get lost is flushed by its writer; at the exit of the process the owner flushes the rest. A process that is
 * killed loses the lines of its last moment.
 */
export class GatheredLines implements LogDestination {
  readonly #destination: LogDestination;
  readonly #options: GatheredLinesOptions;
  #waiting = "";
  #timer: NodeJS.Timeout | undefined;

  constructor(destination: LogDestination, options: GatheredLinesOptions) {
    this.#destination = destination;
    this.#options = options;
  }

  write(line: string): void {
    this.#waiting += line;
    if (this.#waiting.length >= this.#options.upTo) this.flush();
    // Logging alone keeps no process alive.
    else this.#timer ??= setTimeout(() => this.flush(), this.#options.forMs).unref();
  }

  /** Writes what waits, now. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const lines = this.#waiting;
    if (lines === "") return;
    this.#waiting = "";
    this.#destination.write(lines);
  }
}
