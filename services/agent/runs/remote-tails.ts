import { fromBinary } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type { RunTailService, TailRunResponse } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { RunAdvancedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { abortable } from "#platform/abortable.ts";
import type { Bus, BusMessage } from "#platform/bus/bus.ts";
import { type Call, onward, withSignal } from "#platform/rpc/call.ts";
import { LiveFeed, type Subscription } from "./live-feed.ts";
import { OpenItemsModel } from "./open-items.ts";
import { RunHint } from "./run-hint.ts";
import { runSubject } from "./run-subject.ts";

/** How long an owner may take to show the first frame before readers go on from the log alone. */
const FIRST_FRAME_MS = 2_000;
/** How long an owner that did not answer is left alone. */
const RETRY_MS = 1_000;
/** How long a tail may be behind what the bus says is stored before it is given up: its owner is frozen, cut off or replaced. */
const BEHIND_MS = 1_000;

export interface RemoteTailsOptions {
  clientAt(address: string): Client<typeof RunTailService>;
  bus: Bus;
}

/**
 * Runs that other replicas own and somebody watches here: one stream per run from its owner, however many watch it.
 * A tail gives what only the owner has (deltas, and what is open); the log stays the truth, so losing a tail loses
 * nothing but previews.
 */
export class RemoteTails {
  readonly #tails = new Map<string, Tail>();
  readonly #options: RemoteTailsOptions;

  constructor(options: RemoteTailsOptions) {
    this.#options = options;
  }

  /** Tails that are open or being opened. */
  get size(): number {
    return [...this.#tails.values()].filter(({ readers }) => readers > 0).length;
  }

  /** A place at the owner's feed, or undefined when the owner does not answer or does not own the run. */
  async subscribe(
    call: Call,
    run: { runId: string; address: string },
    signal: AbortSignal,
  ): Promise<Subscription | undefined> {
    const key = `${run.runId} ${run.address}`;
    let tail = this.#tails.get(key);
    if (tail === undefined) {
      const forget = (which: Tail) => {
        if (this.#tails.get(key) === which) this.#tails.delete(key);
      };
      tail = new Tail(this.#options, call, run, forget);
      this.#tails.set(key, tail);
    }
    return tail.join(signal);
  }

  close(): void {
    for (const tail of this.#tails.values()) tail.end();
    this.#tails.clear();
  }
}

/** One stream from the owner of a run. */
class Tail {
  readers = 0;
  readonly #controller = new AbortController();
  readonly #feed: Promise<LiveFeed | undefined>;
  readonly #forget: (tail: Tail) => void;
  #opened: LiveFeed | undefined;
  #behind: NodeJS.Timeout | undefined;

  constructor(
    { clientAt, bus }: RemoteTailsOptions,
    call: Call,
    run: { runId: string; address: string },
    forget: (tail: Tail) => void,
  ) {
    this.#forget = forget;
    // The tail outlives the reader who opened it: others may have joined.
    const options = onward(withSignal(call, this.#controller.signal));
    const frames = () => clientAt(run.address).tailRun({ runId: run.runId }, options);
    const hint = () =>
      new RunHint(bus, runSubject(call.principal.tenantId, run.runId), (message) => this.#compare(message));
    this.#feed = this.#open(frames, hint);
  }

  /** A reader's place; its disposal ends the tail when it was the last. */
  async join(signal: AbortSignal): Promise<Subscription | undefined> {
    this.readers++;
    let left = false;
    const leave = () => {
      if (left) return;
      left = true;
      if (--this.readers === 0 && this.#opened !== undefined) this.end();
    };
    const feed = await abortable(this.#feed, signal).catch(() => undefined);
    if (feed === undefined) {
      leave();
      // Who left while the tail was being opened may have been the last one.
      void this.#feed.then((late) => {
        if (late !== undefined && this.readers === 0) this.end();
      });
      return undefined;
    }
    const place = feed.subscribe();
    return {
      open: place.open,
      queue: place.queue,
      [Symbol.dispose]: () => {
        place[Symbol.dispose]();
        leave();
      },
    };
  }

  end(): void {
    this.#forget(this);
    this.#controller.abort();
  }

  /** Never rejects: without a first frame there is no feed, and for a moment nobody tries again. */
  async #open(start: () => AsyncIterable<TailRunResponse>, listen: () => RunHint): Promise<LiveFeed | undefined> {
    const timer = setTimeout(() => this.#controller.abort(), FIRST_FRAME_MS);
    try {
      const frames = start()[Symbol.asyncIterator]();
      const first = await frames.next();
      if (first.done === true || first.value.frame.case !== "openItems") throw new Error("no first frame");
      const feed = new LiveFeed(OpenItemsModel.from(first.value.frame.value));
      this.#opened = feed;
      void this.#pump(frames, feed, listen());
      return feed;
    } catch {
      this.#controller.abort();
      setTimeout(() => this.#forget(this), RETRY_MS).unref();
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  async #pump(frames: AsyncIterator<TailRunResponse>, feed: LiveFeed, hint: RunHint): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await frames.next();
        if (done === true) break;
        if (value.frame.case === "event") feed.push(value.frame.value);
      }
    } catch {
      // The owner went away, or nobody reads any more; either way the readers go on with the log.
    } finally {
      clearTimeout(this.#behind);
      hint[Symbol.dispose]();
      this.end();
      feed.close();
    }
  }

  /** The bus speaks of what is stored: a tail that does not show it soon is a tail of an owner who is none any more. */
  #compare({ data }: BusMessage): void {
    const feed = this.#opened;
    const { seq } = fromBinary(RunAdvancedSchema, data);
    if (feed === undefined || feed.closed || seq <= feed.seq || this.#behind !== undefined) return;
    this.#behind = setTimeout(() => {
      this.#behind = undefined;
      if (feed.seq < seq) this.end();
    }, BEHIND_MS);
  }
}
