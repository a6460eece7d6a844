import type { ModelMessage } from "../../llm/chat-model.ts";
import { cutHistory, roundsOf } from "./rounds.ts";
import { isSummary } from "./summary.ts";

export interface Trimmed {
  history: ModelMessage[];
  /** Messages that were dropped. */
  dropped: number;
}

/**
 * Drops the oldest rounds until about `excess` tokens are gone. What was asked first, what is being worked on, summaries and
 * the last `keepTurns` rounds stay, so it may come to less. `tokensOf` measures a message.
 */
export function trimHistory(
  history: readonly ModelMessage[],
  excess: number,
  keepTurns: number,
  tokensOf: (message: ModelMessage) => number,
): Trimmed {
  const { middle } = cutHistory(history, keepTurns);
  const gone = new Set<ModelMessage>();
  let left = excess;
  for (const round of roundsOf(middle.filter((message) => !isSummary(message)))) {
    if (left <= 0) break;
    for (const message of round) {
      gone.add(message);
      left -= tokensOf(message);
    }
  }
  return { history: history.filter((message) => !gone.has(message)), dropped: gone.size };
}
