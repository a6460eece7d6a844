import type { ContentPart, ModelMessage, ModelTool } from "../../llm/chat-model.ts";

/** An image as the providers count it at most, once they have scaled it down. */
const imageTokens = 1_600;
/** What roles, ids and delimiters cost. */
const messageTokens = 4;
const callTokens = 12;

/** Messages in a history and tools of a run do not change, so each is measured once. */
const measured = new WeakMap<ModelMessage, number>();
const measuredTools = new WeakMap<ModelTool, number>();

/**
 * About how many tokens a text has, without the model's own tokenizer: four characters of ASCII to one, one for each
 * character of a script that is written without spaces, two characters of any other to one. It errs to the high side.
 */
export function estimateText(text: string): number {
  // Most of what is measured is plain ASCII, and this finds out much faster than a look at every character.
  if (Buffer.byteLength(text) === text.length) return Math.ceil(text.length / 4);
  let ascii = 0;
  let dense = 0;
  let other = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) ascii++;
    else if (isDense(unit)) dense++;
    else other++;
  }
  return Math.ceil(ascii / 4 + dense + other / 2);
}

/** CJK with its punctuation, kana, Hangul, full-width forms; surrogates, so that an emoji counts two. */
function isDense(unit: number): boolean {
  return (unit >= 0x2e80 && unit <= 0x9fff) || (unit >= 0xac00 && unit <= 0xdfff) || (unit >= 0xf900 && unit <= 0xffef);
}

/** About how many tokens a message takes in a request. */
export function estimateMessage(message: ModelMessage): number {
  let tokens = measured.get(message);
  if (tokens === undefined) {
    tokens = messageTokens;
    for (const part of message.content) {
      if (part.type === "text" || part.type === "image") tokens += estimateContent([part]);
      else if (part.type === "tool_call")
        tokens += callTokens + estimateText(part.name) + estimateText(part.argumentsJson);
      else if (part.type === "tool_result") tokens += callTokens + estimateContent(part.content);
      else tokens += estimateText(part.redacted ? part.signature : part.text);
    }
    measured.set(message, tokens);
  }
  return tokens;
}

/** About how many tokens what a person or a tool said takes. */
export function estimateContent(parts: readonly ContentPart[]): number {
  return parts.reduce((sum, part) => sum + (part.type === "text" ? estimateText(part.text) : imageTokens), 0);
}

/** About how many tokens messages take together. */
export function estimateMessages(messages: readonly ModelMessage[]): number {
  return messages.reduce((sum, message) => sum + estimateMessage(message), 0);
}

/** About how many tokens the part of a request in front of its messages takes. */
export function estimateFrame(system: string, tools: readonly ModelTool[]): number {
  return tools.reduce((sum, tool) => sum + estimateTool(tool), estimateText(system));
}

function estimateTool(tool: ModelTool): number {
  let tokens = measuredTools.get(tool);
  if (tokens === undefined) {
    const { name, description, inputSchema } = tool;
    tokens = callTokens + estimateText(name) + estimateText(description) + estimateText(JSON.stringify(inputSchema));
    measuredTools.set(tool, tokens);
  }
  return tokens;
}
