import type { ModelUsage } from "./events.ts";

/** Tokens by class; a count of tokens belongs to one class only. */
type Tokens = Omit<ModelUsage, "provider" | "model">;

/** Tokens added up by provider and model. */
export class UsageTally {
  readonly #sums = new Map<string, ModelUsage>();

  add(usage: ModelUsage): void {
    const key = JSON.stringify([usage.provider, usage.model]);
    const sum = this.#sums.get(key);
    if (sum === undefined) this.#sums.set(key, { ...usage });
    else addTokens(sum, usage);
  }

  list(): ModelUsage[] {
    return [...this.#sums.values()];
  }
}

/** Usage of nothing yet. */
export function noTokens(provider: string, model: string): ModelUsage {
  return { provider, model, inputTokens: 0, cacheReadTokens: 0, cacheWriteTokens: 0, outputTokens: 0 };
}

/** Adds tokens to a sum. */
export function addTokens(sum: Tokens, more: Tokens): void {
  sum.inputTokens += more.inputTokens;
  sum.cacheReadTokens += more.cacheReadTokens;
  sum.cacheWriteTokens += more.cacheWriteTokens;
  sum.outputTokens += more.outputTokens;
}
