import { setTimeout as sleep } from "node:timers/promises";
import { TransactionConflict } from "./errors.ts";

/**
 * Runs `transaction` (a whole transaction, such as `() => db.tenant(…)`) again when it failed by a serialization
 * failure or deadlock, at most `attempts` times in all (default 4), after random waits of up to 10, 20, 40 ms.
 * Everything in it is run again, so it must do nothing but database work. Any other error is passed on at once.
 */
export async function retryConflicts<T>(
  transaction: () => Promise<T>,
  { attempts = 4, signal }: { attempts?: number; signal?: AbortSignal | undefined } = {},
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await transaction();
    } catch (error) {
      if (!(error instanceof TransactionConflict) || attempt >= attempts) throw error;
      await sleep(Math.random() * 5 * 2 ** attempt, undefined, { signal });
    }
  }
}
