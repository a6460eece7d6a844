import { abortable } from "../abortable.ts";
import { dependencyDown } from "../rpc/errors.ts";
import type { Bus, BusLog, BusMessage, ConsumeOptions, Publication, Subscription } from "./bus.ts";
import { DurableGroup } from "./durable-group.ts";
import { RecentIds } from "./recent-ids.ts";
import { assertPattern, assertSubject, matches } from "./subjects.ts";
import { subscription } from "./subscription.ts";
import { assertPublication, assertSize, compileConsumer, tooManyPending } from "./validation.ts";
import { describe, Worker } from "./worker.ts";

export interface EmbeddedBusConfig {
  log: BusLog;
  /** How long a published id is remembered; default 2 minutes, as JetStream's window. */
  dedupWindowMs?: number | undefined;
  /** Most ids that are remembered; default 100 000. */
  dedupIds?: number | undefined;
  /** Publications that may be pending at once; more are refused with CONCURRENCY_LIMIT. Default 10 000. */
  maxPending?: number | undefined;
  /** How long `unsubscribe` and `close` wait for running handlers; default 10 s. */
  drainMs?: number | undefined;
}

interface Listener {
  pattern: string;
  onMessage: (message: BusMessage) => void;
}

/**
 * The bus of a mesh that runs in one process.
 *
 * Nothing here is on disk, yet no event is lost in a crash: `publish` resolves only when every durable whose subjects
 * match has *handled* the message (or put it aside as poison). The outbox relay marks its row after that, so whatever was
 * queued, running or waiting for another attempt when the process died is still an unmarked row and is published again at
 * the next start. What was handled but not yet marked is handled twice, as on every at-least-once bus.
 *
 * It follows that a publish may take as long as its handlers and their backoff do. The relay bounds how many it has in
 * flight; repeating an id that is still in flight joins the first call. A handler must not publish itself (it writes an
 * outbox row): waiting for a message that waits for the handler's own place would never end. A durable is known from its first `consume` on,
 * and stays known: a message that arrives between two of its consumers waits for the next one. A message that is
 * published before a durable's first `consume` in this process does not reach it, so the relay starts after the consumers.
 */
export class EmbeddedBus implements Bus {
  readonly #log: BusLog;
  readonly #maxPending: number;
  readonly #drainMs: number;
  readonly #handled: RecentIds;
  /** By durable name and pattern. */
  readonly #groups = new Map<string, DurableGroup>();
  readonly #inFlight = new Map<string, Promise<void>>();
  readonly #listeners = new Set<Listener>();
  readonly #workers = new Set<Worker>();
  #closing: Promise<void> | undefined;

  constructor(config: EmbeddedBusConfig) {
    this.#log = config.log;
    this.#maxPending = config.maxPending ?? 10_000;
    this.#drainMs = config.drainMs ?? 10_000;
    this.#handled = new RecentIds(config.dedupWindowMs ?? 120_000, config.dedupIds ?? 100_000);
  }

  async publish(publication: Publication, signal?: AbortSignal): Promise<void> {
    assertPublication(publication);
    signal?.throwIfAborted();
    this.#assertOpen();
    const { id } = publication;
    if (this.#handled.has(id)) return;
    const delivery = this.#inFlight.get(id) ?? this.#deliver(publication);
    await abortable(delivery, signal);
  }

  async consume(options: ConsumeOptions): Promise<Subscription> {
    const consumer = compileConsumer(options);
    this.#assertOpen();
    const groups = consumer.subjects.map((pattern) => this.#group(consumer.durable, pattern));
    const worker = new Worker(consumer, this.#log, () => {
      for (const group of groups) group.start();
    });
    this.#workers.add(worker);
    for (const group of groups) group.join(worker);
    return subscription(async () => {
      for (const group of groups) group.leave(worker);
      await worker.drain(this.#drainMs);
      this.#workers.delete(worker);
    });
  }

  notify(subject: string, data: Uint8Array): void {
    assertSubject(subject);
    assertSize(data);
    if (this.#closing !== undefined) return;
    this.#tell({ subject, id: "", data: data.slice(), headers: {}, attempt: 1 });
  }

  async listen(pattern: string, onMessage: (message: BusMessage) => void): Promise<Subscription> {
    assertPattern(pattern);
    this.#assertOpen();
    const listener = { pattern, onMessage };
    this.#listeners.add(listener);
    return subscription(async () => void this.#listeners.delete(listener));
  }

  async ping(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    this.#assertOpen();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#listeners.clear();
    await Promise.all([...this.#workers].map((worker) => worker.drain(this.#drainMs)));
    for (const group of this.#groups.values()) group.close(dependencyDown("event bus"));
  }

  #deliver({ subject, id, data, headers = {} }: Publication): Promise<void> {
    const groups = [...this.#groups.values()].filter((group) => group.takes(subject));
    if (this.#inFlight.size >= this.#maxPending) throw tooManyPending();
    // A copy, so that the publisher may use its buffer again while the message waits.
    const message: BusMessage = { subject, id, data: data.slice(), headers: { ...headers }, attempt: 1 };
    const delivery = Promise.all(groups.map((group) => group.enqueue(message))).then(() => this.#handled.add(id));
    this.#inFlight.set(id, delivery);
    const landed = () => void this.#inFlight.delete(id);
    delivery.then(landed, landed);
    this.#tell(message);
    return delivery;
  }

  #tell(message: BusMessage): void {
    for (const listener of this.#listeners) {
      if (!matches(listener.pattern, message.subject)) continue;
      // Later, as from a network: a listener never runs inside the publisher's call.
      queueMicrotask(() => {
        if (!this.#listeners.has(listener)) return;
        try {
          listener.onMessage(message);
        } catch (error) {
          this.#log.error({ bus_subject: message.subject, ...describe(error) }, "bus listener failed");
        }
      });
    }
  }

  #group(durable: string, pattern: string): DurableGroup {
    const name = `${durable} ${pattern}`;
    const group = this.#groups.get(name) ?? new DurableGroup(pattern);
    this.#groups.set(name, group);
    return group;
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw dependencyDown("event bus");
  }
}
