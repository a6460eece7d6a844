const MINUTE_MS = 60_000;
const MAX_NAMES = 1_000;

/** Says something about each of many names at most once a minute. */
export class OncePerMinute {
  readonly #said = new Map<string, number>();

  /** True for the first call with a name in a minute. */
  first(name: string, now = performance.now()): boolean {
    const last = this.#said.get(name);
    if (last !== undefined && now - last < MINUTE_MS) return false;
    this.#said.delete(name);
    this.#said.set(name, now);
    const [oldest] = this.#said.keys();
    if (this.#said.size > MAX_NAMES && oldest !== undefined) this.#said.delete(oldest);
    return true;
  }
}
