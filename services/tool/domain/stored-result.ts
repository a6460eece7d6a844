import type { ToolContent } from "#platform/plugin/define-tool.ts";
import type { ToolResult } from "./tool-result.ts";

/** What is given again when a call is repeated. */
export interface StoredResult {
  /** Without what is kept of it to be read page by page, which has its own place. */
  readonly result: ToolResult;
  readonly durationMs: number;
}

type StoredContent = { type: "text"; text: string } | { type: "image"; mediaType: string; base64: string };

/** As JSON, images in Base64. */
export function storeResult({ result, durationMs }: StoredResult): Uint8Array {
  const { whole: _, ...rest } = result;
  const content = rest.content.map((part): StoredContent => {
    if (part.type === "text") return part;
    const { buffer, byteOffset, byteLength } = part.data;
    const base64 = Buffer.from(buffer, byteOffset, byteLength).toString("base64");
    return { type: "image", mediaType: part.mediaType, base64 };
  });
  return Buffer.from(JSON.stringify({ ...rest, content, durationMs }));
}

/** What {@link storeResult} made. */
export function readResult(stored: Uint8Array): StoredResult {
  const { durationMs, content, ...rest } = JSON.parse(Buffer.from(stored).toString());
  const parts = (content as StoredContent[]).map(
    (part): ToolContent =>
      part.type === "text"
        ? part
        : { type: "image", mediaType: part.mediaType, data: Buffer.from(part.base64, "base64") },
  );
  return { result: { ...rest, content: parts }, durationMs };
}
