/** Ids seen within a window of time, at most so many: the oldest are forgotten first. */
export class RecentIds {
  readonly #windowMs: number;
  readonly #most: number;
  readonly #now: () => number;
  /** Id → when it was added; a Map keeps the order of insertion, which is the order of age. */
  readonly #added = new Map<string, number>();

  /** `now` is a monotonic clock in milliseconds. */
  constructor(windowMs: number, most: number, now: () => number = () => performance.now()) {
    this.#windowMs = windowMs;
    this.#most = most;
    this.#now = now;
  }

  get size(): number {
    return this.#added.size;
  }

  add(id: string): void {
    this.#added.delete(id);
    this.#added.set(id, this.#now());
    for (const [oldest, at] of this.#added) {
      if (this.#added.size <= this.#most && this.#now() - at < this.#windowMs) break;
      this.#added.delete(oldest);
    }
  }

  has(id: string): boolean {
    const at = this.#added.get(id);
    return at !== undefined && this.#now() - at < this.#windowMs;
  }
}
