import { allows, backlogOf, type Cells, cellsOf, partOf, takenOf } from "./gcra.ts";
import type { LimitAnswer, Limiter, Take, Taken } from "./limiter.ts";

export interface EmbeddedLimiterConfig {
  /** Most buckets that are kept; default 100 000. Full ones go first, then those that were used longest ago. */
  maxBuckets?: number | undefined;
  /** A monotonic clock in microseconds. */
  nowMicros?: (() => number) | undefined;
}

/** How many buckets one take looks at to find full ones. */
const sweepStep = 4;

/** The limits of a mesh that runs in one process, and of one process of several while Redis is away. */
export class EmbeddedLimiter implements Limiter {
  readonly #maxBuckets: number;
  readonly #now: () => number;
  /** Until when each bucket's units are spent, in µs; a Map keeps the order of insertion. */
  readonly #spentUntil = new Map<string, number>();

  constructor(config: EmbeddedLimiterConfig = {}) {
    this.#maxBuckets = config.maxBuckets ?? 100_000;
    this.#now = config.nowMicros ?? (() => Math.floor(performance.now() * 1000));
  }

  /** Buckets that are kept. */
  get size(): number {
    return this.#spentUntil.size;
  }

  async take(take: Take): Promise<Taken> {
    return this.takeNow([take]).taken[0] as Taken;
  }

  async takeAll(takes: readonly Take[]): Promise<LimitAnswer> {
    return this.takeNow(takes);
  }

  /** The same, at once. With `replicas` it is that part of the limit; alone this process has all of it. */
  takeNow(takes: readonly Take[], replicas = 1): LimitAnswer {
    const now = this.#now();
    const buckets = takes.map((take) => {
      const name = nameOf(take);
      const cells = partOf(cellsOf(take), replicas);
      const backlog = backlogOf(this.#spentUntil.get(name), now, cells);
      return { name, cells, backlog, allowed: allows(backlog, cells) };
    });
    const allowed = buckets.every((bucket) => bucket.allowed);
    if (allowed) for (const bucket of buckets) this.#charge(bucket, now);
    return {
      allowed,
      taken: buckets.map((one) => takenOf(one.backlog, one.allowed, allowed, one.cells)),
      by: replicas === 1 ? "all" : "this process",
    };
  }

  async close(): Promise<void> {
    this.#spentUntil.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #charge({ name, cells, backlog }: { name: string; cells: Cells; backlog: number }, now: number): void {
    if (cells.cost === 0) return;
    this.#spentUntil.delete(name);
    this.#spentUntil.set(name, now + backlog + cells.cost * cells.interval);
    let looked = 0;
    for (const [other, until] of this.#spentUntil) {
      const tooMany = this.#spentUntil.size > this.#maxBuckets;
      if (until <= now || tooMany) this.#spentUntil.delete(other);
      looked += 1;
      if (looked >= sweepStep && this.#spentUntil.size <= this.#maxBuckets) break;
    }
  }
}

/** Injective: a tenant contains no space. */
function nameOf({ tenantId, key }: Take): string {
  return `${tenantId} ${key}`;
}
