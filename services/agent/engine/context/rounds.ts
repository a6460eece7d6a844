import type { ModelMessage } from "../../llm/chat-model.ts";
import { isSummary } from "./summary.ts";

/**
 * A history cut where it may be cut: each round is what was said to the model, its answer, and the results of the calls in
 * it. The last one may lack the answer. A call and its result are always in one round.
 */
export function roundsOf(history: readonly ModelMessage[]): ModelMessage[][] {
  const rounds: ModelMessage[][] = [];
  let round: ModelMessage[] = [];
  let answered = false;
  for (const message of history) {
    if (answered && message.role !== "tool") {
      rounds.push(round);
      round = [];
      answered = false;
    }
    round.push(message);
    if (message.role === "assistant") answered = true;
  }
  if (round.length > 0) rounds.push(round);
  return rounds;
}

/** A history with the part in its middle that may be left out. */
export interface CutHistory {
  /** Messages before the tail that stay, in order: what was asked first, and what is being worked on. */
  front: ModelMessage[];
  /** What may be left out, in order. */
  middle: ModelMessage[];
  /** The last rounds. */
  tail: ModelMessage[];
}

/**
 * Cuts a history so that the last `keepTurns` rounds with an answer, and what was said after them, stay, and the first and
 * the newest message of the user in front of them.
 */
export function cutHistory(history: readonly ModelMessage[], keepTurns: number): CutHistory {
  const rounds = roundsOf(history);
  const open = rounds.at(-1)?.some(({ role }) => role === "assistant") === false ? 1 : 0;
  const from = Math.max(0, rounds.length - Math.max(1, keepTurns) - open);
  const before = rounds.slice(0, from).flat();
  const tail = rounds.slice(from).flat();
  const kept = requests(before, tail);
  return {
    front: before.filter((message) => kept.has(message)),
    middle: before.filter((message) => !kept.has(message)),
    tail,
  };
}

/** The original request; and the newest one, where the rounds behind the cut are all work on it. */
function requests(before: readonly ModelMessage[], tail: readonly ModelMessage[]): Set<ModelMessage> {
  const asked = before.filter(isRequest);
  const kept = new Set(asked.slice(0, 1));
  if (!tail.some(isRequest)) for (const message of asked.slice(-1)) kept.add(message);
  return kept;
}

function isRequest(message: ModelMessage): boolean {
  return message.role === "user" && message.hidden !== true;
}

/** Whether leaving these messages out would lose something: a summary alone has been made short already. */
export function isWorthCutting(middle: readonly ModelMessage[]): boolean {
  return middle.some((message) => !isSummary(message));
}
