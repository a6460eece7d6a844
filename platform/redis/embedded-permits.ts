import { checkPermit, type PermitAnswer, type PermitRequest, type Permits } from "./permits.ts";

export interface EmbeddedPermitsConfig {
  /** A monotonic clock in milliseconds. */
  now?: (() => number) | undefined;
}

/** The permits of a mesh that runs in one process, and of one process of several while Redis is away. */
export class EmbeddedPermits implements Permits {
  readonly #now: () => number;
  /** When each holder's lease ends, by tenant. */
  readonly #held = new Map<string, Map<string, number>>();

  constructor({ now = () => performance.now() }: EmbeddedPermitsConfig = {}) {
    this.#now = now;
  }

  async acquire(request: PermitRequest): Promise<PermitAnswer> {
    return this.acquireNow(request);
  }

  /** The same, at once. With `replicas` it is that part of the limit, one at least; alone this process has all of it. */
  acquireNow(request: PermitRequest): PermitAnswer {
    checkPermit(request);
    const { tenantId, holder, limit, leaseMs, replicas = 1 } = request;
    const held = this.#live(tenantId);
    const own = replicas === 1 || limit === 0 ? limit : Math.max(1, Math.floor(limit / replicas));
    const granted = held.has(holder) || held.size < own;
    if (granted) this.enter(tenantId, holder, leaseMs);
    return { granted, held: this.#live(tenantId).size, by: replicas === 1 ? "all" : "this process" };
  }

  /** Notes a permit that was granted elsewhere. */
  enter(tenantId: string, holder: string, leaseMs: number): void {
    const held = this.#held.get(tenantId) ?? new Map<string, number>();
    this.#held.set(tenantId, held.set(holder, this.#now() + leaseMs));
  }

  async renew(tenantId: string, holders: readonly string[], leaseMs: number): Promise<void> {
    for (const holder of holders) this.enter(tenantId, holder, leaseMs);
  }

  async release(tenantId: string, holder: string): Promise<void> {
    const held = this.#held.get(tenantId);
    held?.delete(holder);
    if (held?.size === 0) this.#held.delete(tenantId);
  }

  async held(tenantId: string): Promise<number> {
    return this.#live(tenantId).size;
  }

  async close(): Promise<void> {
    this.#held.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** A tenant's holders whose lease has not ended. */
  #live(tenantId: string): ReadonlyMap<string, number> {
    const held = this.#held.get(tenantId);
    if (held === undefined) return new Map();
    const now = this.#now();
    for (const [holder, until] of held) if (until <= now) held.delete(holder);
    if (held.size === 0) this.#held.delete(tenantId);
    return held;
  }
}
