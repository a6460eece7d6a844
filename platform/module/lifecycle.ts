import type { Log } from "../telemetry/log.ts";
import type { Running } from "./module.ts";

/** Where a process stands. */
export type LifecycleState = "new" | "starting" | "running" | "draining" | "stopped";

/** A built module under its name. */
export interface Part {
  readonly name: string;
  readonly running: Running;
}

/** Times of a stop, in milliseconds. */
export interface StopTimes {
  /** Between "not ready" and the first refusal, so that balancers notice. */
  delayMs: number;
  /** For work in flight to end by itself. */
  graceMs: number;
  /** For modules to break off and write down what has not; default 2 000. */
  settleMs?: number;
}

/**
 * Starts modules in order and stops them in reverse. A module that cannot start stops all; a stop goes: not ready →
 * wait → drain everything → stop everything. Nothing here ends the process: that is main's to do.
 */
export class Lifecycle {
  readonly #parts: readonly Part[];
  readonly #log: Log;
  readonly #listeners = new Set<() => void>();
  readonly #started: Part[] = [];
  readonly #abort = new AbortController();
  #state: LifecycleState = "new";
  #stopping: Promise<void> | undefined;

  /** @param parts in start order */
  constructor(parts: readonly Part[], log: Log) {
    this.#parts = parts;
    this.#log = log;
  }

  get state(): LifecycleState {
    return this.#state;
  }

  /** True while new work is welcome: everything has started, nothing drains, and every module can work. */
  ready(): boolean {
    return this.#state === "running" && this.#parts.every(({ running }) => running.ready?.() ?? true);
  }

  /** Calls back when the state changes; returns a function that unsubscribes. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Starts all. When one fails, those that have started are stopped and its error is thrown. */
  async start(): Promise<void> {
    this.#enter("starting");
    for (const part of this.#parts) {
      try {
        // Before its start: a module that fails half-way has something to release, too.
        this.#started.push(part);
        await part.running.start?.(this.#abort.signal);
        this.#log.debug({ module: part.name }, "module started");
      } catch (error) {
        this.#log.error({ module: part.name, err: error }, "module failed to start");
        await this.stop({ delayMs: 0, graceMs: 0 });
        throw error;
      }
    }
    if (this.#state === "starting") this.#enter("running");
  }

  /** Drains and stops; further calls wait for the first. Never throws: a module that fails to stop is logged. */
  stop(times: StopTimes): Promise<void> {
    this.#stopping ??= this.#stop(times);
    return this.#stopping;
  }

  async #stop({ delayMs, graceMs, settleMs = 2_000 }: StopTimes): Promise<void> {
    this.#enter("draining");
    if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
    const reversed = this.#started.toReversed();
    const grace = AbortSignal.timeout(Math.max(1, graceMs));
    const patience = AbortSignal.timeout(Math.max(1, graceMs) + settleMs);
    await Promise.all(
      reversed.map((part) => this.#quietly(part, "drain", () => within(part.running.drain?.(grace), patience))),
    );
    this.#abort.abort();
    for (const part of reversed) await this.#quietly(part, "stop", () => part.running.stop?.());
    this.#enter("stopped");
  }

  async #quietly(part: Part, what: string, fn: () => Promise<void> | undefined): Promise<void> {
    try {
      await fn();
    } catch (error) {
      this.#log.error({ module: part.name, err: error }, `module failed to ${what}`);
    }
  }

  #enter(state: LifecycleState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }
}

/** A module that overlooks the end of its grace must not keep the process. */
function within(work: Promise<void> | undefined, signal: AbortSignal): Promise<void> | undefined {
  if (work === undefined) return undefined;
  return Promise.race([
    work,
    new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true })),
  ]);
}
