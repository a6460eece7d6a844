import { inspect } from "node:util";

/** What every printed form of a secret is. */
export const REDACTED = "[redacted]";

/**
 * A value that must not be printed. Every accidental way out (JSON, string conversion, template text,
 * `util.inspect`, `console`) shows `[redacted]`; the value leaves through `reveal()` only, so that a search for
 * `reveal(` finds every use. The value is a private field: it is neither enumerable nor kept by `structuredClone`.
 */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself. Call it where the value is used, and keep the result in no longer-lived place. */
  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }

  [Symbol.toPrimitive](): string {
    return REDACTED;
  }
}
