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
  "claude-haiku-5-5": current,

  "claude-haiku-4-5": generation45,
  "claude-haiku-4-5-20251001": generation45,
};

/** For a Claude that is not in the table: limits that any current one has, and nothing that some refuse. */
const unknownClaude: ModelFacts = { contextWindow: 200_000, maxOutputTokens: 64_000, acceptsTemperature: false };

/**
 * Families of other providers by the beginning of a name, the longer before the shorter; from the providers' model pages of
 * November 2026, where they say nothing the smaller figure. OpenAI's since o1 think, and take no temperature while they do.
 */
const families: readonly (readonly [prefix: string, facts: ModelFacts])[] = [
  ["gpt-6", thinks(1_050_000, 128_000)],
  ["gpt-5-chat", { contextWindow: 128_000, maxOutputTokens: 16_384, acceptsTemperature: true }],
  ["gpt-5", thinks(400_000, 128_000)],
  ["gpt-4.1", { contextWindow: 1_047_576, maxOutputTokens: 32_768, acceptsTemperature: true }],
  ["gpt-4o", { contextWindow: 128_000, maxOutputTokens: 16_384, acceptsTemperature: true }],
  ["gpt-4-turbo", { contextWindow: 128_000, maxOutputTokens: 4_096, acceptsTemperature: true }],
  ["gpt-4", { contextWindow: 8_192, maxOutputTokens: 4_096, acceptsTemperature: true }],
  ["gpt-3.5", { contextWindow: 16_385, maxOutputTokens: 4_096, acceptsTemperature: true }],
  ["o1", thinks(200_000, 100_000)],
  ["o3", thinks(200_000, 100_000)],
  ["o4", thinks(200_000, 100_000)],
  ["deepseek-", { contextWindow: 128_000, maxOutputTokens: 32_768, acceptsTemperature: true }],
  ["gemini-", { contextWindow: 1_000_000, maxOutputTokens: 64_000, acceptsTemperature: true }],
  ["mistral-", { contextWindow: 128_000, maxOutputTokens: 32_768, acceptsTemperature: true }],
];

/** For any other: what small servers are usually started with. `models.context_windows` says it better. */
const unknown: ModelFacts = { contextWindow: 32_768, maxOutputTokens: 16_384, acceptsTemperature: true };

function thinks(contextWindow: number, maxOutputTokens: number): ModelFacts {
  return { contextWindow, maxOutputTokens, acceptsTemperature: false };
}

/**
 * Facts about a model, by its name as any provider writes it: with the name of a vendor before it
 * (`anthropic/claude-opus-5-5`) and a date behind it (`-20260922`, `-2026-09-22`) or without.
 */
export function modelFacts(model: string): ModelFacts {
  const name = familyName(model);
  if (Object.hasOwn(known, name)) return known[name as Listed<Model>];
  if (name.startsWith("claude-")) return unknownClaude;
  return families.find(([prefix]) => name.startsWith(prefix))?.[1] ?? unknown;
}

/** Whether a model is OpenAI's own, whichever server answers for it; `thinks`: one that thinks before it answers. */
export function openAiModel(model: string): "thinks" | "plain" | undefined {
  const name = familyName(model);
  if (/^(o\d|gpt-[5-9](?!-chat)|codex)/.test(name)) return "thinks";
  return /^(gpt-\d|chatgpt-)/.test(name) ? "plain" : undefined;
}

/** The name without vendor and date. */
export function familyName(model: string): string {
  return model.slice(model.lastIndexOf("/") + 1).replace(/-(\d{8}|\d{4}-\d{2}-\d{2})$/, "");
}

/** Tokens that prompt and answer may have together, where the configuration does not say it otherwise. */
export function contextWindowOf(model: string, configured: Readonly<Record<string, number>> = {}): number {
  return (Object.hasOwn(configured, model) ? configured[model] : undefined) ?? modelFacts(model).contextWindow;
}
