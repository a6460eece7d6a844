export interface FairQueueOptions {
  /** Most items that wait, of all tenants together. */
  maxWaiting: number;
  /** Most items of one tenant that wait. */
  maxWaitingPerTenant: number;
}

/** An item that waits; {@link FairQueue.remove} takes it back. */
export interface Waiting<T> {
  readonly tenantId: string;
  readonly item: T;
}

interface Lane<T> {
  readonly tenantId: string;
  weight: number;
  /** Items that may still leave before it is the next lane's turn. */
  credit: number;
  readonly waiting: Set<Waiting<T>>;
}

/**
 * A bounded queue that is fair between tenants: deficit round robin (Shreedhar and Varghese, 1995) over items of equal
 * cost. In each round a tenant with weight `w` gives `w` items, however many it has waiting; its own items leave in the
 * order in which they came. A tenant that has nothing waiting saves nothing up.
 */
export class FairQueue<T> {
  readonly #options: FairQueueOptions;
  /** Lanes with something waiting; the first one's turn it is. */
  readonly #lanes = new Map<string, Lane<T>>();
  #size = 0;

  constructor(options: FairQueueOptions) {
    this.#options = options;
  }

  /** Items that wait. */
  get size(): number {
    return this.#size;
  }

  /** Items of one tenant that wait. */
  waitingOf(tenantId: string): number {
    return this.#lanes.get(tenantId)?.waiting.size ?? 0;
  }

  /** Puts an item at the end of its tenant's lane; `weight` is a whole number from 1. Undefined when there is no room. */
  push(tenantId: string, weight: number, item: T): Waiting<T> | undefined {
    if (!Number.isSafeInteger(weight) || weight < 1) throw new RangeError("a weight is a whole number from 1");
    const { maxWaiting, maxWaitingPerTenant } = this.#options;
    if (this.#size >= maxWaiting || this.waitingOf(tenantId) >= maxWaitingPerTenant) return undefined;
    let lane = this.#lanes.get(tenantId);
    if (lane === undefined) {
      lane = { tenantId, weight, credit: weight, waiting: new Set() };
      this.#lanes.set(tenantId, lane);
    }
    lane.weight = weight;
    const waiting = { tenantId, item };
    lane.waiting.add(waiting);
    this.#size += 1;
    return waiting;
  }

  /** Takes the item whose turn it is, of the tenants that `may` go on; the turn of others stays where it was. */
  take(may: (tenantId: string) => boolean = () => true): Waiting<T> | undefined {
    for (const lane of this.#lanes.values()) {
      if (!may(lane.tenantId)) continue;
      const [next] = lane.waiting;
      if (next === undefined) continue;
      lane.credit -= 1;
      if (lane.credit === 0) this.#toTheEnd(lane);
      this.remove(next);
      return next;
    }
    return undefined;
  }

  /** Takes an item back; false when it has left already. */
  remove(waiting: Waiting<T>): boolean {
    const lane = this.#lanes.get(waiting.tenantId);
    if (lane?.waiting.delete(waiting) !== true) return false;
    this.#size -= 1;
    if (lane.waiting.size === 0) this.#lanes.delete(lane.tenantId);
    return true;
  }

  #toTheEnd(lane: Lane<T>): void {
    lane.credit = lane.weight;
    this.#lanes.delete(lane.tenantId);
    this.#lanes.set(lane.tenantId, lane);
  }
}
