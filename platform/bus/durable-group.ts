import type { BusMessage } from "./bus.ts";
import { matches } from "./subjects.ts";
import type { Worker } from "./worker.ts";

interface Entry {
  message: BusMessage;
  done: () => void;
  failed: (error: Error) => void;
}

/**
 * The in-process queue of one durable name and one subject pattern, and the workers that take from it. It outlives its
 * workers: what is queued while none is there waits for the next one.
 */
export class DurableGroup {
  readonly pattern: string;
  readonly #workers: Worker[] = [];
  readonly #queue: Entry[] = [];
  /** Entries that wait for their next attempt. */
  readonly #resting = new Map<Entry, NodeJS.Timeout>();
  #closed: Error | undefined;

  constructor(pattern: string) {
    this.pattern = pattern;
  }

  takes(subject: string): boolean {
    return matches(this.pattern, subject);
  }

  join(worker: Worker): void {
    this.#workers.push(worker);
    this.start();
  }

  leave(worker: Worker): void {
    const at = this.#workers.indexOf(worker);
    if (at >= 0) this.#workers.splice(at, 1);
  }

  /** Resolves when a handler has returned for the message, or it was put aside as poison; rejects when the group closes. */
  enqueue(message: BusMessage): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#queue.push({ message, done: resolve, failed: reject });
    this.start();
    return promise;
  }

  /** Hands queued messages to free workers. Call it when a worker has become free. */
  start(): void {
    for (let worker = this.#nextFree(); worker !== undefined; worker = this.#nextFree()) {
      const entry = this.#queue.shift();
      if (entry === undefined) return;
      void this.#deliver(entry, worker);
    }
  }

  /** Rejects everything that no handler has finished. */
  close(error: Error): void {
    this.#closed = error;
    for (const timer of this.#resting.values()) clearTimeout(timer);
    for (const entry of [...this.#queue, ...this.#resting.keys()]) entry.failed(error);
    this.#queue.length = 0;
    this.#resting.clear();
  }

  #nextFree(): Worker | undefined {
    return this.#queue.length === 0 ? undefined : this.#workers.find((worker) => worker.free > 0);
  }

  async #deliver(entry: Entry, worker: Worker): Promise<void> {
    const verdict = await worker.run(entry.message);
    if (typeof verdict === "string") {
      entry.done();
      return;
    }
    if (this.#closed !== undefined) {
      entry.failed(this.#closed);
      return;
    }
    entry.message = { ...entry.message, attempt: entry.message.attempt + 1 };
    const timer = setTimeout(() => {
      this.#resting.delete(entry);
      this.#queue.push(entry);
      this.start();
    }, verdict.againInMs);
    this.#resting.set(entry, timer);
  }
}
