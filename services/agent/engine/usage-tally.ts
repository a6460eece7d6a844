import type { ModelUsage } from "./events.ts";

/** Tokens added up by provider and model. */
export class UsageTally {
  readonly #sums = new Map<string, ModelUsage>();

  add(usage: ModelUsage): void {
    const key = JSON.stringify([usage.provider, usage.model]);
    const sum = this.#sums.get(key);
    if (sum === undefined) {
      this.#sums.set(key, { ...usage });
      return;
    }
    sum.inputTokens += usage.inputTokens;
    sum.cacheReadTokens += usage.cacheReadTokens;
    sum.cacheWriteTokens += usage.cacheWriteTokens;
    sum.outputTokens += usage.outputTokens;
  }

  list(): ModelUsage[] {
    return [...this.#sums.values()];
  }
}
