import type { ModelMessage } from "../../llm/chat-model.ts";
import type { ModelUsage } from "../events.ts";
import { estimateMessage, estimateMessages } from "./estimate.ts";

/** Tokens of the context after a call of the model: the whole prompt, cached or not, and the answer. */
export function contextTokens(usage: Omit<ModelUsage, "provider" | "model">): number {
  return usage.inputTokens + usage.cacheReadTokens + usage.cacheWriteTokens + usage.outputTokens;
}

/**
 * Knows about how many tokens the next request has: what the last call really used, plus what was added since, less what
 * was taken away since. Before the first usage, and where a provider reports none, everything is estimated.
 */
export class Gauge {
  #known: { tokens: number; messages: ReadonlySet<ModelMessage>; estimated: number } | undefined;

  /** The context had `tokens` tokens, with these messages in it, the answer included. */
  observe(tokens: number, messages: readonly ModelMessage[], frame: number): void {
    if (tokens === 0) return;
    this.#known = { tokens, messages: new Set(messages), estimated: frame + estimateMessages(messages) };
  }

  /** Tokens of a request with these messages, behind system and tools of about `frame` tokens. */
  estimate(messages: readonly ModelMessage[], frame: number): number {
    const known = this.#known;
    if (known === undefined) return frame + estimateMessages(messages);
    let added = 0;
    let kept = 0;
    for (const message of messages) {
      if (known.messages.has(message)) kept += estimateMessage(message);
      else added += estimateMessage(message);
    }
    // What is gone is taken off at the rate at which the estimates were right.
    const gone = known.estimated - frame - kept;
    return Math.round(known.tokens - gone * (known.tokens / known.estimated) + added);
  }
}
