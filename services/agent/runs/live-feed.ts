import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { OpenItems } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { EventQueue } from "./event-queue.ts";
import { OpenItemsModel } from "./open-items.ts";

/** A reader's place at a live run: what is open now, and every event from now on. To be disposed of; twice is harmless. */
export interface Subscription extends Disposable {
  readonly open: OpenItems;
  readonly queue: EventQueue;
}

/** The live events of one run in this process, whether it is owned here or tailed from its owner. */
export class LiveFeed {
  readonly #queues = new Set<EventQueue>();
  readonly #model: OpenItemsModel;
  #closed = false;

  constructor(model: OpenItemsModel = new OpenItemsModel()) {
    this.#model = model;
  }

  get subscribers(): number {
    return this.#queues.size;
  }

  /** True when nothing more will come from here. */
  get closed(): boolean {
    return this.#closed;
  }

  /** seq of the newest event that was shown. */
  get seq(): bigint {
    return this.#model.seq;
  }

  /** Shows an event to every reader. Never waits and never throws. */
  push(event: AgentEvent): void {
    this.#model.apply(event);
    for (const queue of this.#queues) queue.push(event);
  }

  subscribe(): Subscription {
    const queue = new EventQueue();
    const open = this.#model.snapshot();
    if (this.#closed) queue.end("closed");
    else this.#queues.add(queue);
    return { open, queue, [Symbol.dispose]: () => void this.#queues.delete(queue) };
  }

  /** No more events will come from here; readers go on with the log. */
  close(): void {
    this.#closed = true;
    for (const queue of this.#queues) queue.end("closed");
    this.#queues.clear();
  }
}
