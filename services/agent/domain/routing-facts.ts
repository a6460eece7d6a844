import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import type { ConditionFacts } from "#platform/cel/condition.ts";
import type { RunInput } from "./run-input.ts";

/** Characters at the beginning of a message by which its language is told. */
const SAMPLE = 2_000;

/** Scripts that tell a language, the telling ones first: Japanese is written with Han too. */
const SCRIPTS: readonly (readonly [language: string, script: RegExp])[] = [
  ["ja", /[\p{Script=Hiragana}\p{Script=Katakana}]/u],
  ["ko", /\p{Script=Hangul}/u],
  ["zh", /\p{Script=Han}/u],
  ["ru", /\p{Script=Cyrillic}/u],
  ["ar", /\p{Script=Arabic}/u],
  ["he", /\p{Script=Hebrew}/u],
  ["th", /\p{Script=Thai}/u],
  ["el", /\p{Script=Greek}/u],
  ["hi", /\p{Script=Devanagari}/u],
];

/** By TenantTier. */
const TIERS = ["", "free", "starter", "pro", "enterprise"];

/** What the conditions of routes speak of. `messages`: those that the session had before this one. */
export function routingFacts(
  { agent, tier, userProfile }: ResolveAgentResponse,
  input: RunInput,
  messages: number,
): ConditionFacts {
  const { message, attachments, context } = input;
  return {
    context,
    message: {
      length: [...message].length,
      has_images: attachments.some(({ type }) => type === "image"),
      language: languageOf(input, userProfile?.language),
    },
    session: { message_count: messages },
    tenant: { tier: TIERS[tier] ?? "" },
    agent: { id: agent?.agentId ?? "" },
  };
}

/** A message's language: what the caller says, else what its script says, else the user's, else English. */
export function languageOf({ message, context }: Pick<RunInput, "message" | "context">, preferred = ""): string {
  const { language } = context;
  if (typeof language === "string" && language !== "") return language;
  const sample = message.slice(0, SAMPLE);
  const written = SCRIPTS.find(([, script]) => script.test(sample))?.[0];
  if (written === undefined) return preferred || "en";
  return preferred.toLowerCase().split("-")[0] === written ? preferred : written;
}
