import type { UsageEvent } from "./chat-model.ts";
import { demoProvider } from "./demo.ts";
import { familyName } from "./model-facts.ts";
import { type Price, type PriceTable, readPrices } from "./price-table.ts";
import shipped from "./prices.json" with { type: "json" };

const perMillion = 1_000_000n;
/** Models of which it is remembered that their price is unknown. */
const maxWarned = 1_000;

/** What one call took. */
export type PricedUsage = Pick<
  UsageEvent,
  "provider" | "model" | "inputTokens" | "cacheReadTokens" | "cacheWriteTokens" | "outputTokens"
>;

export interface Pricing {
  /** The cost of one call in nano-USD, rounded up; null when the model's price is unknown, never 0 in place of it. */
  costOf(usage: PricedUsage): bigint | null;
}

export interface PricingOptions {
  /** Prices by model name that come before the shipped ones. */
  overrides?: PriceTable;
  /** Told once of each model whose price is unknown. */
  onUnknown?: (provider: string, model: string) => void;
}

/**
 * Costs by the table that is shipped (prices.json: list prices of November 2026 with their sources, cache writes for five
 * minutes) and what the configuration says otherwise. A name is looked up as it is, then without the date behind it. Nothing
 * is asked of the network.
 */
export function createPricing(options: PricingOptions = {}): Pricing {
  const standard = readPrices(shipped.models);
  const warned = new Set<string>();
  const find = (model: string): Price | undefined => options.overrides?.get(model) ?? standard.get(model);
  return {
    costOf(usage) {
      const { provider, model } = usage;
      const price = find(provider === demoProvider ? demoProvider : model) ?? find(undated(model));
      if (price !== undefined) return cost(price, usage);
      const key = `${provider} ${model}`;
      if (!warned.has(key) && warned.size < maxWarned) {
        warned.add(key);
        options.onUnknown?.(provider, model);
      }
      return null;
    },
  };
}

function undated(model: string): string {
  // A vendor's name before it is another seller's, with prices of his own.
  return model.includes("/") ? model : familyName(model);
}

function cost(price: Price, usage: PricedUsage): bigint {
  const { inputTokens, cacheReadTokens, cacheWriteTokens, outputTokens } = usage;
  const prompt = inputTokens + cacheReadTokens + cacheWriteTokens;
  const { longPrompt } = price;
  const { input, cacheRead, cacheWrite, output } = longPrompt && prompt > longPrompt.above ? longPrompt : price;
  const total =
    BigInt(inputTokens) * input +
    BigInt(cacheReadTokens) * cacheRead +
    BigInt(cacheWriteTokens) * cacheWrite +
    BigInt(outputTokens) * output;
  return (total + perMillion - 1n) / perMillion;
}
