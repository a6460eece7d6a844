/** Most names that are remembered; the oldest are given up then. */
const maxNames = 10_000;
const batchSize = 500;
const retryMs = 1_000;

/**
 * Names that have to be deleted and could not be, because the server was away. Until one is, this process must not read
 * under it: the server may come back with what it held.
 */
export class OwedDeletions {
  readonly #remove: (names: string[]) => Promise<boolean>;
  readonly #onForgotten: () => void;
  /** Name → a number that is new each time the name is owed. */
  readonly #owed = new Map<string, number>();
  #count = 0;
  #closed = false;
  #paying: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;

  /** `remove` deletes names and tells whether it could; `onForgotten` hears of each name that is given up. */
  constructor(remove: (names: string[]) => Promise<boolean>, onForgotten: () => void) {
    this.#remove = remove;
    this.#onForgotten = onForgotten;
  }

  has(name: string): boolean {
    return this.#owed.has(name);
  }

  add(name: string): void {
    this.#count += 1;
    this.#owed.delete(name);
    this.#owed.set(name, this.#count);
    const [oldest] = this.#owed.keys();
    if (this.#owed.size > maxNames && oldest !== undefined) {
      this.#owed.delete(oldest);
      this.#onForgotten();
    }
    this.#retryLater();
  }

  /** Deletes what is owed. Call it when the server is back. */
  pay(): void {
    this.#paying ??= this.#pay().finally(() => {
      this.#paying = undefined;
    });
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#owed.clear();
  }

  async #pay(): Promise<void> {
    while (this.#owed.size > 0) {
      const batch = [...this.#owed].slice(0, batchSize);
      if (!(await this.#remove(batch.map(([name]) => name)))) {
        this.#retryLater();
        return;
      }
      for (const [name, count] of batch) {
        // Owed again while this was under way: what was written in between has to go too.
        if (this.#owed.get(name) === count) this.#owed.delete(name);
      }
    }
  }

  #retryLater(): void {
    clearTimeout(this.#retry);
    if (this.#closed) return;
    this.#retry = setTimeout(() => this.pay(), retryMs);
  }
}
