/** The label value that stands for every value without a series of its own. */
export const OTHER = "other";

/**
 * Keeps one label of the metrics to at most `limit` values plus `"other"`: a label that customers can fill (tenants,
 * tool names) would otherwise grow the exposition without end. The values that get a series are the busiest ones: a
 * place goes to whoever comes while there is room, and {@link rerank} gives the places of quiet values to busier ones.
 */
export class BoundedLabel {
  readonly #limit: number;
  /** Uses since about two rankings ago, of the values with a place … */
  readonly #named = new Map<string, number>();
  /** … and of some of those without: at most four times as many. */
  readonly #waiting = new Map<string, number>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The value to write for `value`; counts as one use of it. Nothing or empty is `"unknown"`. */
  use(value: string | undefined): string {
    const name = value || "unknown";
    const uses = this.#named.get(name);
    if (uses !== undefined || this.#named.size < this.#limit) {
      this.#named.set(name, (uses ?? 0) + 1);
      return name;
    }
    const waited = this.#waiting.get(name);
    if (waited !== undefined || this.#waiting.size < 4 * this.#limit) this.#waiting.set(name, (waited ?? 0) + 1);
    return OTHER;
  }

  /** The value to write for `value`, without counting. */
  peek(value: string): string {
    return this.#named.has(value) ? value : OTHER;
  }

  /**
   * Gives places to values that were used clearly more often than the quietest named ones, then halves all counts.
   * Returns the values that lost their place: their series have to go, or the limit does not hold.
   */
  rerank(): string[] {
    const lost: string[] = [];
    const quietest = [...this.#named].sort(([, a], [, b]) => a - b);
    for (const [candidate, uses] of [...this.#waiting].sort(([, a], [, b]) => b - a)) {
      const [name, count] = quietest.shift() ?? [];
      // Twice as many, so that equals do not take turns and tear each other's series.
      if (name === undefined || count === undefined || uses < 2 * count + 2) break;
      this.#named.delete(name);
      this.#named.set(candidate, uses);
      this.#waiting.delete(candidate);
      lost.push(name);
    }
    for (const [name, uses] of this.#named) this.#named.set(name, uses / 2);
    for (const [name, uses] of this.#waiting) {
      if (uses >= 2) this.#waiting.set(name, uses / 2);
      else this.#waiting.delete(name);
    }
    return lost;
  }
}
