import type { AssistantPart, ContentPart, ModelMessage, ToolResultPart } from "../../llm/chat-model.ts";
import { estimateMessages, estimateText } from "./estimate.ts";
import { roundsOf } from "./rounds.ts";
import { isSummary } from "./summary.ts";

/** Characters that are left of a long text, tried one after the other. */
const lengths = [32_000, 8_000, 2_000, 500];

/**
 * Messages made to fit a request of `budget` tokens, for a summary of them: as they are where they fit; else with long
 * outputs of tools and long texts cut in their middle; else without the oldest rounds, with a note in their place.
 * `front` and an earlier summary stay.
 */
export function fitMessages(
  front: readonly ModelMessage[],
  middle: readonly ModelMessage[],
  budget: number,
): ModelMessage[] {
  let messages = [...front, ...middle];
  if (estimateMessages(messages) <= budget) return messages;
  for (const length of lengths) {
    messages = [...front, ...middle].map((message) => shorten(message, length));
    if (estimateMessages(messages) <= budget) return messages;
  }
  const shortFront = messages.slice(0, front.length);
  const rest = messages.slice(front.length);
  const summaries = rest.filter(isSummary);
  const rounds = roundsOf(rest.filter((message) => !isSummary(message)));
  let size = estimateMessages(messages);
  let dropped = 0;
  while (rounds.length > 1 && size > budget) {
    const round = rounds.shift() as ModelMessage[];
    size -= estimateMessages(round);
    dropped += round.length;
  }
  const note: ModelMessage[] = dropped === 0 ? [] : [leftOut(dropped)];
  return [...shortFront, ...summaries, ...note, ...rounds.flat()];
}

function leftOut(messages: number): ModelMessage {
  return { role: "user", hidden: true, content: [{ type: "text", text: `[${messages} messages left out here.]` }] };
}

function shorten(message: ModelMessage, length: number): ModelMessage {
  if (message.role === "tool") return { ...message, content: message.content.map((part) => shortResult(part, length)) };
  if (message.role === "user") {
    return isSummary(message)
      ? message
      : { ...message, content: message.content.map((part) => shortPart(part, length)) };
  }
  return { ...message, content: message.content.map((part) => shortAnswer(part, length)) };
}

function shortAnswer(part: AssistantPart, length: number): AssistantPart {
  if (part.type === "text") return { ...part, text: middleCut(part.text, length) };
  if (part.type !== "tool_call" || part.argumentsJson.length <= length) return part;
  return { ...part, argumentsJson: JSON.stringify({ shortened: middleCut(part.argumentsJson, length) }) };
}

function shortResult(result: ToolResultPart, length: number): ToolResultPart {
  return { ...result, content: result.content.map((part) => shortPart(part, length)) };
}

function shortPart(part: ContentPart, length: number): ContentPart {
  return part.type === "text" ? { ...part, text: middleCut(part.text, length) } : { type: "text", text: "[image]" };
}

/** A text without its middle where it is longer than `length` characters; two thirds of what stays are its beginning. */
export function middleCut(text: string, length: number): string {
  if (text.length <= length) return text;
  const head = text.slice(0, Math.ceil((length * 2) / 3)).toWellFormed();
  const tail = text.slice(text.length - Math.floor(length / 3)).toWellFormed();
  return `${head}\n[about ${estimateText(text.slice(head.length, text.length - tail.length))} tokens left out here]\n${tail}`;
}
