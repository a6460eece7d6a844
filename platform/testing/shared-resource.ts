/**
 * One resource per process, shared by whoever holds it: opened by the first holder, closed by the last.
 * A later holder opens a new one.
 */
export class SharedResource<T> {
  readonly #open: () => Promise<T>;
  readonly #close: (resource: T) => Promise<void>;
  #holders = 0;
  #current: Promise<T> | undefined;

  constructor(open: () => Promise<T>, close: (resource: T) => Promise<void>) {
    this.#open = open;
    this.#close = close;
  }

  /** Every call that resolves must be followed by one {@link release}. */
  async hold(): Promise<T> {
    this.#holders += 1;
    this.#current ??= this.#open();
    try {
      return await this.#current;
    } catch (error) {
      this.#holders -= 1;
      this.#current = undefined;
      throw error;
    }
  }

  async release(): Promise<void> {
    this.#holders -= 1;
    if (this.#holders > 0 || this.#current === undefined) return;
    const ending = this.#current;
    this.#current = undefined;
    await this.#close(await ending);
  }
}
