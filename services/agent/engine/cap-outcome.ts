import type { ContentPart } from "../llm/chat-model.ts";
import { sliceText } from "./slice-text.ts";
import { readToolOutputName, type ToolOutcome } from "./tool-spec.ts";

/** Base64 of one image, and parts, in one result; providers refuse more. */
const maxImageLength = 7 * 1024 * 1024;
const maxParts = 100;
const maxStructuredLength = 1024 * 1024;

/**
 * A tool's outcome within bounds, whatever the tool returned: at most `maxBytes` of text, images that a provider takes,
 * well-formed Unicode. Where something is missing, the text says how to read it. Throws on what is no outcome at all.
 */
export function capOutcome(outcome: ToolOutcome, maxBytes: number, callId: string): ToolOutcome {
  let left = maxBytes;
  let cut = outcome.content.length > maxParts;
  const content: ContentPart[] = [];
  for (const part of outcome.content.slice(0, maxParts)) {
    if (part.type === "image") {
      const fits = part.data.length <= maxImageLength;
      content.push(
        fits ? part : { type: "text", text: `[An image of type ${part.mediaType} is too large to be shown.]` },
      );
      continue;
    }
    if (left === 0 && part.text !== "") {
      cut = true;
      continue;
    }
    const { text, end } = sliceText(part.text, 0, left);
    const isWhole = text.length === part.text.length;
    left = isWhole ? left - end : 0;
    cut ||= !isWhole;
    content.push(text.isWellFormed() ? { ...part, text } : { ...part, text: text.toWellFormed() });
  }
  const structuredJson = outcome.structuredJson ?? "";
  const capped: ToolOutcome = { ...outcome, content };
  if (structuredJson.length > maxStructuredLength) capped.structuredJson = "";
  if (cut) capped.truncated = true;
  if (capped.truncated === true && !pointsOut(content)) content.push(pointer(callId, textBytes(content)));
  return capped;
}

/** The tool service says it in its own words, where it was the one that cut. */
function pointsOut(content: readonly ContentPart[]): boolean {
  const last = content.at(-1);
  return last?.type === "text" && last.text.includes(readToolOutputName);
}

function pointer(callId: string, shown: number): ContentPart {
  const how = `call ${readToolOutputName} with call_id ${JSON.stringify(callId)} and offset ${shown}`;
  return { type: "text", text: `[The output was cut here. To read on, ${how}.]` };
}

function textBytes(content: readonly ContentPart[]): number {
  return content.reduce((sum, part) => sum + (part.type === "text" ? Buffer.byteLength(part.text) : 0), 0);
}
