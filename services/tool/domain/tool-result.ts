import type { Escalation, ToolContent, ToolOutput } from "#platform/plugin/define-tool.ts";

/** What a call answers, within the tool's limits. */
export interface ToolResult {
  readonly content: readonly ToolContent[];
  /** JSON text; empty when there is none, or when it was larger than the limit. */
  readonly structuredJson: string;
  readonly isError: boolean;
  readonly truncated: boolean;
  /** Set when the model was shown less, or may be later. */
  readonly whole?: WholeOutput;
  readonly escalation?: Escalation;
}

/** The text of an output, to be read page by page. */
export interface WholeOutput {
  /** Its beginning, {@link MAX_KEPT_BYTES} of UTF-8 at most. */
  readonly text: string;
  /** UTF-8 bytes of all of it. */
  readonly bytes: number;
  /** UTF-8 bytes of `text` that the model is shown. */
  readonly shown: number;
}

export interface ResultLimits {
  /** Most bytes of text that are shown. */
  readonly maxBytes: number;
  /** Keep the whole text also when all of it is shown. */
  readonly keep?: boolean;
}

const IMAGE_TYPES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
export const MAX_IMAGE_BYTES = 5 * 1024 * 1024;
export const MAX_IMAGES = 8;
/** What stays of an output for later reading. */
export const MAX_KEPT_BYTES = 4 * 1024 * 1024;
/** Between the texts of several content parts. */
const SEPARATOR = "\n";
const ESCALATION_CHARS = 1_000;

/** A failed call. The text is shown to the model. */
export function failedResult(message: string, maxBytes: number): ToolResult {
  const { content, truncated } = limited([{ type: "text", text: message }], maxBytes);
  return { content, truncated, structuredJson: "", isError: true };
}

/** What a tool returned, cut to its limit. Throws TypeError for what is no {@link ToolOutput}, whatever its type says. */
export function resultOf(output: ToolOutput, { maxBytes, keep = false }: ResultLimits): ToolResult {
  const { content, structuredJson, escalation } = partsOf(output);
  const { content: shown, truncated, textCut } = limited(content, maxBytes);
  // Half of a JSON text is none.
  const tooLarge = structuredJson.length > maxBytes || Buffer.byteLength(structuredJson) > maxBytes;
  const result: ToolResult = {
    content: shown,
    structuredJson: tooLarge ? "" : structuredJson,
    isError: false,
    truncated: truncated || tooLarge,
    ...(escalation === undefined ? {} : { escalation }),
  };
  if (textCut || keep)
    return { ...result, whole: wholeOf(textsOf(content), Buffer.byteLength(textsOf(shown).join(SEPARATOR))) };
  return tooLarge ? { ...result, whole: wholeOf([structuredJson], 0) } : result;
}

/** The result with a word to the model about what it is not shown, and how to read it. */
export function withPointer(result: ToolResult, callId: string): ToolResult {
  if (!result.truncated || result.whole === undefined) return result;
  const { text, bytes, shown } = result.whole;
  const kept = Buffer.byteLength(text);
  const seen =
    shown === 0 ? `Not shown: a structured result of ${bytes} bytes.` : `Shown: the first ${shown} of ${bytes} bytes.`;
  const rest = kept < bytes ? ` The first ${kept} bytes were kept.` : "";
  const how = `Read on with read_tool_output: call_id ${JSON.stringify(callId)}, offset ${shown}.`;
  return { ...result, content: [...result.content, { type: "text", text: `[${seen}${rest} ${how}]` }] };
}

/** Length of what the model sees: characters of text and bytes of images. */
export function lengthOf({ content }: ToolResult): number {
  return content.reduce((sum, part) => sum + (part.type === "text" ? part.text.length : part.data.byteLength), 0);
}

interface Parts {
  readonly content: readonly ToolContent[];
  readonly structuredJson: string;
  readonly escalation?: Escalation;
}

function partsOf(output: unknown): Parts {
  if (typeof output === "string") return { content: [{ type: "text", text: output }], structuredJson: "" };
  if (typeof output !== "object" || output === null) throw new TypeError(`a tool returned ${typeof output}`);
  const { content, structured, text, escalation } = output as Record<string, unknown>;
  const structuredJson = structured === undefined ? "" : jsonOf(structured);
  const more = escalation === undefined ? {} : { escalation: escalationOf(escalation) };
  if (Array.isArray(content)) return { content: content.map(partOf), structuredJson, ...more };
  if (structuredJson === "") throw new TypeError("a tool returned an object without content");
  return {
    content: [{ type: "text", text: typeof text === "string" ? text : structuredJson }],
    structuredJson,
    ...more,
  };
}

function escalationOf(value: unknown): Escalation {
  const { reason, priority } = Object(value) as Record<string, unknown>;
  const known = priority === "low" || priority === "normal" || priority === "high";
  if (typeof reason !== "string" || !known)
    throw new TypeError("a tool returned an escalation without reason or priority");
  return { reason: cutText(reason.slice(0, ESCALATION_CHARS), 4 * ESCALATION_CHARS).text, priority };
}

function textsOf(content: readonly ToolContent[]): string[] {
  return content.flatMap((part) => (part.type === "text" ? [part.text] : []));
}

/** Never holds more than is kept in one piece, however long the texts are. */
function wholeOf(texts: readonly string[], shown: number): WholeOutput {
  const kept: string[] = [];
  let left = MAX_KEPT_BYTES;
  let bytes = 0;
  for (const [i, text] of texts.entries()) {
    const gap = i === 0 ? "" : SEPARATOR;
    const head = cutText(text, Math.max(0, left - gap.length));
    bytes += gap.length + (head.cut ? Buffer.byteLength(text) : head.bytes);
    if (left <= gap.length) continue;
    kept.push(gap + head.text);
    left = head.cut ? 0 : left - gap.length - head.bytes;
  }
  return { text: kept.join(""), bytes, shown };
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
  let imageLeftOut = false;
  let textCut = false;
  for (const part of parts) {
    if (part.type === "image") {
      if (!IMAGE_TYPES.has(part.mediaType)) throw new TypeError("a tool returned an image of an unknown type");
      if (part.data.byteLength > MAX_IMAGE_BYTES || ++images > MAX_IMAGES) imageLeftOut = true;
      else content.push(part);
      continue;
    }
    // What is shown is one beginning: behind a cut nothing follows, even if it were short.
    if (textCut) continue;
    const { text, bytes, cut } = cutText(part.text, left);
    left -= bytes;
    textCut = cut;
    if (text !== "" || !cut) content.push({ type: "text", text });
  }
  return { content, truncated: textCut || imageLeftOut, textCut };
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
