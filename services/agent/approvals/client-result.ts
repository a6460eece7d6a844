import { createHash } from "node:crypto";
import type { ClientToolResult } from "#gen/agentmesh/agent/v1/client_tool_pb.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import { canonical } from "../domain/canonical.ts";
import { contentFromProto } from "../domain/run-input.ts";
import type { ToolOutcome } from "../engine/tool-spec.ts";

/** Most UTF-8 bytes of text of one result; nothing of it is kept that could be read page by page. */
export const MAX_RESULT_TEXT_BYTES = 256 * 1024;

/** A result that a run's caller has handed in. */
export interface ClientResult {
  callId: string;
  outcome: ToolOutcome;
  /** SHA-256 of all of it. */
  digest: Buffer;
}

/** Narrows one whose form was validated. Throws FIELD_INVALID for what a model could not be shown. */
export function parseClientResult(
  { callId, content, structuredJson, isError }: ClientToolResult,
  i: number,
): ClientResult {
  const parts = content.map(contentFromProto);
  const bytes = parts.reduce((sum, part) => sum + (part.type === "text" ? Buffer.byteLength(part.text) : 0), 0);
  if (bytes > MAX_RESULT_TEXT_BYTES) {
    const description = `has more than ${MAX_RESULT_TEXT_BYTES} bytes of text`;
    throw invalidFields({ field: `results[${i}].content`, description });
  }
  if (structuredJson !== "" && !isJson(structuredJson)) {
    throw invalidFields({ field: `results[${i}].structured_json`, description: "is not valid JSON" });
  }
  const outcome = { content: parts, structuredJson, isError };
  return { callId, outcome, digest: createHash("sha256").update(canonical(outcome)).digest() };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
