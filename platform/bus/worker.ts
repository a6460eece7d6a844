import { within } from "../abortable.ts";
import type { LogFields } from "../telemetry/log-fields.ts";
import type { BusLog, BusMessage } from "./bus.ts";
import type { Consumer } from "./validation.ts";

/** What becomes of a delivery: the message is handled, or put aside as poison, or is to be delivered again after a wait. */
export type Verdict = "done" | "poison" | { againInMs: number };

/** After its signal has aborted a handler may take this long to stop; then it is given up, whatever it still does. */
const abortGraceMs = 1_000;

/** Runs one consumer's handlers: bounded in number and in time, with the rules for failures that both buses share. */
export class Worker {
  readonly consumer: Consumer;
  readonly #log: BusLog;
  readonly #onFree: () => void;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<Verdict>>();
  #draining: Promise<void> | undefined;

  /** `onFree` is called each time a handler has ended. */
  constructor(consumer: Consumer, log: BusLog, onFree: () => void) {
    this.consumer = consumer;
    this.#log = log;
    this.#onFree = onFree;
  }

  /** How many more handlers may start now. */
  get free(): number {
    return this.#draining === undefined ? this.consumer.parallelism - this.#running.size : 0;
  }

  /** Handles one delivery; never rejects. Call it only while {@link free} is positive. */
  async run(message: BusMessage): Promise<Verdict> {
    const verdict = this.#judge(message);
    this.#running.add(verdict);
    try {
      return await verdict;
    } finally {
      this.#running.delete(verdict);
      this.#onFree();
    }
  }

  /** Starts no more handlers; resolves when the running ones are done, aborted after `drainMs`, or given up. */
  drain(drainMs: number): Promise<void> {
    this.#draining ??= this.#drain(drainMs);
    return this.#draining;
  }

  async #drain(drainMs: number): Promise<void> {
    const done = Promise.all(this.#running);
    const stopping = () => new Error("the bus stops waiting for this handler");
    await within(done, drainMs, stopping).catch((reason: unknown) => this.#stop.abort(reason));
    await done;
  }

  async #judge(message: BusMessage): Promise<Verdict> {
    const { maxDeliver, durable, timeoutMs } = this.consumer;
    // A handler's failure makes a message poison at maxDeliver; deliveries without a verdict (the process died, a deploy
    // cut the handler off) count in the number too, so they get as many again before the message is taken for a killer.
    if (message.attempt > 2 * maxDeliver) {
      return this.#poison(message, new Error(`delivered ${message.attempt - 1} times without an outcome`));
    }
    try {
      await this.#bounded(timeoutMs, (signal) => this.consumer.onMessage(message, signal));
      return "done";
    } catch (error) {
      if (this.#stop.signal.aborted) return { againInMs: 0 };
      if (message.attempt >= maxDeliver) return this.#poison(message, error);
      const againInMs = this.#backoff(message.attempt);
      const fields = { ...fieldsOf(message, durable), ...describe(error), delay_ms: againInMs };
      this.#log.warn(fields, "handler failed; the message is delivered again");
      return { againInMs };
    }
  }

  async #poison(message: BusMessage, error: unknown): Promise<Verdict> {
    const { durable, onPoison, timeoutMs } = this.consumer;
    this.#log.error({ ...fieldsOf(message, durable), ...describe(error) }, "message is poison");
    if (onPoison === undefined) return "poison";
    try {
      await this.#bounded(timeoutMs, () => onPoison(message, error));
      return "poison";
    } catch (failure) {
      this.#log.error({ ...fieldsOf(message, durable), ...describe(failure) }, "poison could not be set aside");
      return { againInMs: this.#backoff(message.attempt) };
    }
  }

  #backoff(attempt: number): number {
    const { backoffMs } = this.consumer;
    const base = backoffMs[Math.min(attempt, backoffMs.length) - 1] ?? 1_000;
    return Math.round(base * (1 + Math.random() * 0.1));
  }

  /** Runs `act` with a signal that aborts when the time is up or the worker is stopped; a grace after that it is given up. */
  async #bounded(timeoutMs: number, act: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const limit = new AbortController();
    const { promise: givenUp, reject: giveUp } = Promise.withResolvers<never>();
    let grace: NodeJS.Timeout | undefined;
    const abort = (reason: unknown) => {
      limit.abort(reason);
      grace ??= setTimeout(giveUp, abortGraceMs, reason);
    };
    const timer = setTimeout(() => abort(new Error(`not done after ${timeoutMs} ms`)), timeoutMs);
    const stopped = this.#stop.signal;
    const stop = () => abort(stopped.reason);
    if (stopped.aborted) stop();
    stopped.addEventListener("abort", stop, { once: true });
    try {
      await Promise.race([(async () => act(limit.signal))(), givenUp]);
    } finally {
      clearTimeout(timer);
      clearTimeout(grace);
      stopped.removeEventListener("abort", stop);
    }
  }
}

function fieldsOf({ subject, id, attempt }: BusMessage, durable: string): LogFields {
  return { durable, bus_subject: subject, event_id: id, attempt };
}

/** An error for the log: its name and message, without properties that may hold payloads. */
export function describe(error: unknown): LogFields {
  if (!(error instanceof Error)) return { error_type: typeof error };
  return { error_type: error.name, error_message: error.message };
}
