import type { Model } from "@anthropic-ai/sdk/resources/messages";

/** What must be known of a model before it is asked. */
export interface ModelFacts {
  /** Tokens that prompt and answer may have together. */
  contextWindow: number;
  /** Most output tokens of one call. */
  maxOutputTokens: number;
  /** Whether a sampling temperature may be sent. */
  acceptsTemperature: boolean;
}

/** The names that the SDK's type lists; the type also admits any other string. */
type Listed<M> = M extends string ? (string extends M ? never : M) : never;

const current: ModelFacts = { contextWindow: 1_000_000, maxOutputTokens: 128_000, acceptsTemperature: false };
const generation46: ModelFacts = { contextWindow: 1_000_000, maxOutputTokens: 64_000, acceptsTemperature: true };
const generation45: ModelFacts = { contextWindow: 200_000, maxOutputTokens: 64_000, acceptsTemperature: true };

/** From the provider's model pages of November 2026; where they say nothing, the smaller figure. */
const known: Record<Listed<Model>, ModelFacts> = {
  "claude-fable-5-2": current,
  "claude-fable-5-1": current,
  "claude-fable-5": current,
  "claude-mythos-5-2": current,
  "claude-mythos-5-1": current,
  "claude-mythos-5": current,
  "claude-mythos-preview": { ...current, contextWindow: 200_000, maxOutputTokens: 64_000 },
  "claude-opus-5-5": current,
  "claude-opus-5": current,
  "claude-opus-4-8": current,
  "claude-opus-4-7": current,
  "claude-opus-4-6": generation46,
  "claude-opus-4-5": generation45,
  "claude-opus-4-5-20251101": generation45,
  "claude-sonnet-5-5": current,
  "claude-sonnet-5": current,
  "claude-sonnet-4-6": generation46,
  "claude-sonnet-4-5": generation45,
  "claude-sonnet-4-5-20250929": generation45,
  "claude-haiku-5-5": { ...current, maxOutputTokens: 64_000 },

  "claude-haiku-4-5": generation45,
  "claude-haiku-4-5-20251001": generation45,
};

/** For a name that is not in the table: limits that any current model has, and nothing that some model refuses. */
const unknown: ModelFacts = { contextWindow: 200_000, maxOutputTokens: 64_000, acceptsTemperature: false };

/** Facts about a model of Anthropic's, by its name. */
export function modelFacts(model: string): ModelFacts {
  return Object.hasOwn(known, model) ? known[model as Listed<Model>] : unknown;
}
