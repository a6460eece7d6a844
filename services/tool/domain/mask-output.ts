import type { ToolOutput } from "#platform/plugin/define-tool.ts";

type Mask = (text: string) => string;

const MAX_DEPTH = 64;

/** A copy of a JSON value in which each text (field names too) went through `mask`, and each number that masking changes is text. */
export function maskTexts(value: unknown, mask: Mask, depth = 0): unknown {
  if (typeof value === "string") return mask(value);
  if (typeof value === "number" || typeof value === "bigint") {
    const text = String(value);
    const masked = mask(text);
    return masked === text ? value : masked;
  }
  if (typeof value !== "object" || value === null) return value;
  if (depth >= MAX_DEPTH) return "[too deep]";
  if (Array.isArray(value)) return value.map((item) => maskTexts(item, mask, depth + 1));
  // fromEntries defines properties, so that a field named __proto__ stays a field.
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [mask(name), maskTexts(item, mask, depth + 1)]),
  );
}

/** What a tool returned, with every text masked. Images stay as they are. */
export function maskOutput(output: ToolOutput, mask: Mask): ToolOutput {
  if (typeof output === "string") return mask(output);
  const { structured, escalation } = output;
  const more = escalation && { escalation: { ...escalation, reason: mask(escalation.reason) } };
  if (!("content" in output)) {
    const text = output.text === undefined ? {} : { text: mask(output.text) };
    return { structured: maskTexts(structured, mask), ...text, ...more };
  }
  const content = output.content.map((part) => (part.type === "text" ? { ...part, text: mask(part.text) } : part));
  return { content, ...(structured === undefined ? {} : { structured: maskTexts(structured, mask) }), ...more };
}
