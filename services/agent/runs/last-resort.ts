import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { cacheKey } from "#platform/redis/cache-key.ts";

/** A run as far as it matters for whether its answer may be given to somebody else. */
export interface Question {
  tenantId: string;
  resolved: ResolveAgentResponse;
  /** As the model was shown it. */
  message: string;
  /** BCP 47 tag of the language in which an answer is best. */
  language: string;
  /** True: nothing but message and agent decides the answer: first of its session, no attachments, no user, no facts. */
  standsAlone: boolean;
}

/** An answer for when no model is available. */
export type Resort = { kind: "cached" | "canned"; text: string };

/** Answers without a model: one that was given before to the same question, or the tenant's prepared one. */
export class LastResort {
  readonly #cache: Cache;
  readonly #ttlMs: number;

  constructor(cache: Cache, ttlMs: number) {
    this.#cache = cache;
    this.#ttlMs = ttlMs;
  }

  async answer(question: Question): Promise<Resort | undefined> {
    const key = keyOf(question);
    const cached = key && (await this.#cache.get(key));
    if (cached) return { kind: "cached", text: cached };
    const canned = cannedAnswer(question.resolved.cannedAnswer, question.language);
    return canned === undefined ? undefined : { kind: "canned", text: canned };
  }

  /** Keeps the answer of a model for the next one who asks the same. */
  async remember(question: Question, answer: string): Promise<void> {
    const key = keyOf(question);
    if (key === undefined || answer.trim() === "") return;
    await this.#cache.set(key, answer, this.#ttlMs);
  }
}

function keyOf({ tenantId, resolved, message, standsAlone }: Question) {
  const { agent, cachedAnswers, userProfile } = resolved;
  if (!cachedAnswers || !standsAlone || agent === undefined || agent.tools.length > 0 || userProfile) return undefined;
  return cacheKey({ tenantId, namespace: "agent.answer", parts: [agent.agentId, String(agent.version), message] });
}

/** By the whole tag, then by its language, then `default`, then whichever there is. */
export function cannedAnswer(answers: Readonly<Record<string, string>>, language: string): string | undefined {
  const byTag = new Map(Object.entries(answers).map(([tag, text]) => [tag.toLowerCase(), text]));
  const tag = language.toLowerCase();
  const [primary = ""] = tag.split("-");
  const related = [...byTag].find(([one]) => one.split("-")[0] === primary)?.[1];
  const found = byTag.get(tag) ?? byTag.get(primary) ?? related ?? byTag.get("default") ?? [...byTag.values()][0];
  return found === undefined || found.trim() === "" ? undefined : found;
}
