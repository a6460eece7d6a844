import type { ToolResultPart } from "../llm/chat-model.ts";
import { sliceText } from "./slice-text.ts";
import type { OutputPart, ReadToolOutput, ToolOutcome } from "./tool-spec.ts";

/** UTF-8 bytes of one part. */
const maxPartBytes = 16_384;

/**
 * Reads an earlier output for the model. What the history still holds whole is taken from there, images included; the rest
 * is asked for outside.
 */
export async function readOutput(
  { callId, offset }: { callId: string; offset: number },
  find: (callId: string) => ToolResultPart | undefined,
  readOutside: ReadToolOutput | undefined,
  signal: AbortSignal,
): Promise<ToolOutcome> {
  const held = find(callId);
  const inside = held === undefined ? undefined : partOf(held, offset);
  const outside = held === undefined || held.truncated ? await readOutside?.(callId, offset, signal) : undefined;
  const part = outside ?? inside;
  if (part === undefined) {
    return {
      content: [{ type: "text", text: `There is no output of a call ${JSON.stringify(callId)}.` }],
      isError: true,
    };
  }
  const images = offset === 0 && held !== undefined ? held.content.filter(({ type }) => type === "image") : [];
  const shown = part.nextOffset > 0 ? part.nextOffset : part.totalBytes;
  const where =
    part.nextOffset > 0
      ? `[This is up to byte ${shown} of ${part.totalBytes}. Read on with offset ${part.nextOffset}.]`
      : "[This is the end of the output.]";
  return { content: [{ type: "text", text: part.text }, ...images, { type: "text", text: where }] };
}

function partOf({ content }: ToolResultPart, offset: number): OutputPart {
  const text = content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
  const totalBytes = Buffer.byteLength(text);
  const { text: piece, end } = sliceText(text, offset, maxPartBytes);
  return { text: piece, totalBytes, nextOffset: end < totalBytes ? end : 0 };
}
