import type { ToolContent, ToolOutput } from "./define-tool.ts";

/** What a call answers, within the tool's limits. */
export interface ToolResult {
  readonly content: readonly ToolContent[];
  /** JSON text; empty when there is none, or when it was larger than the limit. */
  readonly structuredJson: string;
  readonly isError: boolean;
  readonly truncated: boolean;
}

const IMAGE_TYPES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
export const MAX_IMAGE_BYTES = 5 * 1024 * 1024;
export const MAX_IMAGES = 8;

/** A failed call. The text is shown to the model. */
export function failedResult(message: string, maxBytes: number): ToolResult {
  return { ...limited([{ type: "text", text: message }], maxBytes), structuredJson: "", isError: true };
}

/** What a tool returned, cut to its limit. Throws TypeError for what is no {@link ToolOutput}, whatever its type says. */
export function resultOf(output: ToolOutput, maxBytes: number): ToolResult {
  const { content, structuredJson } = partsOf(output);
  const { content: shown, truncated } = limited(content, maxBytes);
  // Half of a JSON text is none.
  const tooLarge = structuredJson.length > maxBytes || Buffer.byteLength(structuredJson) > maxBytes;
  return {
    content: shown,
    structuredJson: tooLarge ? "" : structuredJson,
    isError: false,
    truncated: truncated || tooLarge,
  };
}

/** Length of what the model sees: characters of text and bytes of images. */
export function lengthOf({ content }: ToolResult): number {
  return content.reduce((sum, part) => sum + (part.type === "text" ? part.text.length : part.data.byteLength), 0);
}

function partsOf(output: unknown): { content: ToolContent[]; structuredJson: string } {
  if (typeof output === "string") return { content: [{ type: "text", text: output }], structuredJson: "" };
  if (typeof output !== "object" || output === null) throw new TypeError(`a tool returned ${typeof output}`);
  const { content, structured, text } = output as { content?: unknown; structured?: unknown; text?: unknown };
  const structuredJson = structured === undefined ? "" : jsonOf(structured);
  if (Array.isArray(content)) return { content: content.map(partOf), structuredJson };
  if (structuredJson === "") throw new TypeError("a tool returned an object without content");
  return { content: [{ type: "text", text: typeof text === "string" ? text : structuredJson }], structuredJson };
}

function jsonOf(value: unknown): string {
  const json: string | undefined = JSON.stringify(value);
  if (json === undefined) throw new TypeError(`a tool returned a structured ${typeof value}`);
  return json;
}

function partOf(part: unknown): ToolContent {
  const { type, text, mediaType, data } = Object(part) as Record<string, unknown>;
  if (type === "text" && typeof text === "string") return { type, text };
  if (type === "image" && typeof mediaType === "string" && data instanceof Uint8Array) return { type, mediaType, data };
  throw new TypeError("a tool returned a content part that is neither text nor an image");
}

function limited(parts: readonly ToolContent[], maxBytes: number) {
  const content: ToolContent[] = [];
  let left = maxBytes;
  let images = 0;
  let truncated = false;
  for (const part of parts) {
    if (part.type === "image") {
      if (!IMAGE_TYPES.has(part.mediaType)) throw new TypeError("a tool returned an image of an unknown type");
      if (part.data.byteLength > MAX_IMAGE_BYTES || ++images > MAX_IMAGES) truncated = true;
      else content.push(part);
      continue;
    }
    const { text, bytes, cut } = cutText(part.text, left);
    left -= bytes;
    truncated ||= cut;
    if (text !== "" || !cut) content.push({ type: "text", text });
  }
  return { content, truncated };
}

/** The longest beginning of a text that has at most `maxBytes` bytes in UTF-8 and ends with a whole character. */
export function cutText(text: string, maxBytes: number): { text: string; bytes: number; cut: boolean } {
  // A UTF-16 unit takes at least one byte, so nothing behind this slice can be shown.
  let head = text.slice(0, maxBytes + 1);
  if (head.length < text.length && /[\ud800-\udbff]$/.test(head)) head = head.slice(0, -1);
  // What neither protobuf nor PostgreSQL can hold: halves of surrogate pairs and U+0000.
  head = head.toWellFormed().replaceAll("\0", "\ufffd");
  const { read, written } = new TextEncoder().encodeInto(head, new Uint8Array(maxBytes));
  return { text: head.slice(0, read), bytes: written, cut: read < head.length || head.length < text.length };
}
