import type { Client } from "@connectrpc/connect";
import type { OpenItems } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import type { RunTailService, TailRunResponse } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { type Call, onward, withSignal } from "#platform/rpc/call.ts";
import { LiveFeed, type Subscription } from "./live-feed.ts";
import { OpenItemsModel } from "./open-items.ts";

/** How long an owner may take to show the first frame before the reader goes on from the log alone. */
const FIRST_FRAME_MS = 2_000;

interface Tail {
  feed: LiveFeed;
  readers: number;
  controller: AbortController;
}

/**
 * Runs that other replicas own and somebody watches here: one stream per run from its owner, however many watch it.
 * A tail gives what only the owner has (deltas, and what is open); the log stays the truth, so losing a tail loses
 * nothing but previews.
 */
export class RemoteTails {
  readonly #tails = new Map<string, Promise<Tail>>();
  readonly #clientAt: (address: string) => Client<typeof RunTailService>;

  constructor(clientAt: (address: string) => Client<typeof RunTailService>) {
    this.#clientAt = clientAt;
  }

  get size(): number {
    return this.#tails.size;
  }

  /** A place at the owner's feed, or undefined when the owner does not answer or does not own the run. */
  async subscribe(call: Call, run: { runId: string; address: string }): Promise<Subscription | undefined> {
    const key = `${run.runId} ${run.address}`;
    let opening = this.#tails.get(key);
    if (opening === undefined) {
      opening = this.#open(call, run, key);
      this.#tails.set(key, opening);
      opening.catch(() => this.#tails.delete(key));
    }
    let tail: Tail;
    try {
      tail = await opening;
    } catch {
      return undefined;
    }
    tail.readers++;
    const subscription = tail.feed.subscribe();
    return {
      open: subscription.open,
      queue: subscription.queue,
      [Symbol.dispose]: () => {
        subscription[Symbol.dispose]();
        if (--tail.readers === 0) tail.controller.abort();
      },
    };
  }

  close(): void {
    for (const opening of this.#tails.values()) opening.then(({ controller }) => controller.abort()).catch(() => {});
  }

  async #open(call: Call, { runId, address }: { runId: string; address: string }, key: string): Promise<Tail> {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), FIRST_FRAME_MS);
    // The tail outlives the reader who opened it: others may have joined.
    const options = onward(withSignal(call, controller.signal));
    const frames = this.#clientAt(address).tailRun({ runId }, options)[Symbol.asyncIterator]();
    try {
      const first = await frames.next();
      if (first.done === true || first.value.frame.case !== "openItems")
        throw new Error("the owner gave no first frame");
      const tail: Tail = { feed: new LiveFeed(modelOf(first.value.frame.value)), readers: 0, controller };
      void this.#pump(frames, tail, key);
      return tail;
    } catch (error) {
      controller.abort();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #pump(frames: AsyncIterator<TailRunResponse>, tail: Tail, key: string): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await frames.next();
        if (done === true) break;
        if (value.frame.case === "event") tail.feed.push(value.frame.value);
      }
    } catch {
      // The owner went away, or nobody reads any more; either way the readers go on with the log.
    } finally {
      this.#tails.delete(key);
      tail.controller.abort();
      tail.feed.close();
    }
  }
}

function modelOf(open: OpenItems): OpenItemsModel {
  return OpenItemsModel.from(open);
}
