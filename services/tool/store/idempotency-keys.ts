import type { Database } from "#platform/postgres/database.ts";
import { removeOldKeys } from "#platform/postgres/idempotency.ts";

const BATCH = 5_000;

/** Answers to repeated requests. */
export class IdempotencyKeys {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Removes those that are older; returns how many. */
  async deleteOlderThan(ageMs: number, signal: AbortSignal): Promise<number> {
    let removed = 0;
    for (;;) {
      const count = await this.#database.worker((tx) => removeOldKeys(tx, "tool", ageMs, BATCH), { signal });
      removed += count;
      if (count < BATCH) return removed;
    }
  }
}
