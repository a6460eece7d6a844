import { isSensitiveKey, MASK_PATTERNS } from "./mask-patterns.ts";
import { REDACTED, Secret } from "./secret.ts";

/** Longest text that masking lets through, in UTF-16 units; what follows is cut. */
export const MAX_TEXT = 8_192;

// A secret that is cut in half no longer looks like one. So more than the limit is masked, and then at least this much
// is dropped from the end: whatever was cut by the first step lies in the part that the second one drops.
const MARGIN = 1_024;

const MAX_PASSES = 8;

/**
 * The text with everything that looks like personal data or a credential replaced by a placeholder, as `[EMAIL]`
 * (design document, "sensitive data"). This is the last net: secrets belong in {@link Secret}, and fields that are not
 * loggable are never handed over. Masking masked text changes nothing. Linear in the length; text above `limit`
 * UTF-16 units ends in `…`.
 */
export function maskText(text: string, limit: number = MAX_TEXT): string {
  const cut = text.length > limit;
  let masked = cut ? text.slice(0, limit + MARGIN) : text;
  // A replaced secret no longer touches its neighbour, which may now show as one too.
  for (let pass = 0; pass < MAX_PASSES; pass++) {
    const before = masked;
    masked = maskOnce(before);
    if (masked === before) break;
  }
  return cut ? `${masked.slice(0, Math.max(0, Math.min(limit, masked.length - MARGIN)))}…` : masked;
}

function maskOnce(text: string): string {
  let masked = text;
  for (const { pattern, replacement, hint } of MASK_PATTERNS) {
    if (hint === undefined || hint.test(masked)) masked = masked.replace(pattern, replacement);
  }
  return masked;
}

/** How much of a value {@link maskJson} keeps. */
export interface MaskLimits {
  /** Levels of nesting; deeper values become `"[too deep]"`. Default 8. */
  readonly depth: number;
  /** Values in all; those after it become `"[more]"`. Default 500. */
  readonly values: number;
  /** UTF-16 units of one text. Default {@link MAX_TEXT}. */
  readonly text: number;
}

const DEFAULT_LIMITS: MaskLimits = { depth: 8, values: 500, text: MAX_TEXT };

/**
 * A copy of any value that is safe to serialise as JSON and to show: every text (keys too) goes through
 * {@link maskText}, a field whose name says credential becomes `"[redacted]"` whatever it holds, errors become
 * `{ type, message, stack, code, reason, cause }`, bytes their length, bigints text. Cycles, depth and size are
 * bounded. Never throws: a value that cannot be read becomes `"[unreadable]"`.
 */
export function maskJson(value: unknown, limits: Partial<MaskLimits> = {}): unknown {
  return new Masking({ ...DEFAULT_LIMITS, ...limits }).value(value, 0);
}

class Masking {
  readonly #limits: MaskLimits;
  readonly #path = new Set<object>();
  #left: number;

  constructor(limits: MaskLimits) {
    this.#limits = limits;
    this.#left = limits.values;
  }

  value(value: unknown, depth: number): unknown {
    if (this.#left-- <= 0) return "[more]";
    switch (typeof value) {
      case "string":
        return maskText(value, this.#limits.text);
      case "number":
        return maskNumber(value);
      case "bigint":
        return maskText(value.toString());
      case "boolean":
        return value;
      case "object":
        return value === null ? null : this.#object(value, depth);
      default:
        return undefined;
    }
  }

  #object(value: object, depth: number): unknown {
    if (this.#path.has(value)) return "[circular]";
    if (depth >= this.#limits.depth) return "[too deep]";
    this.#path.add(value);
    try {
      return this.#contents(value, depth + 1);
    } catch {
      return "[unreadable]";
    } finally {
      this.#path.delete(value);
    }
  }

  #contents(value: object, depth: number): unknown {
    if (value instanceof Secret) return REDACTED;
    if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
    if (value instanceof Error) return this.#error(value, depth);
    if (Array.isArray(value)) return this.#list(value, depth);
    if (value instanceof Set) return this.#list(value, depth);
    if (value instanceof Map) return this.#fields(value, depth);
    if ("toJSON" in value && typeof value.toJSON === "function") return this.value(value.toJSON(), depth);
    return this.#fields(Object.entries(value), depth);
  }

  #list(values: Iterable<unknown>, depth: number): unknown[] {
    const list: unknown[] = [];
    for (const item of values) {
      list.push(this.value(item, depth));
      if (this.#left <= 0) break;
    }
    return list;
  }

  #fields(entries: Iterable<[unknown, unknown]>, depth: number): object {
    const fields: [string, unknown][] = [];
    for (const [name, value] of entries) {
      const key = String(name);
      const hidden = isSensitiveKey(key) && value !== null && value !== undefined && typeof value !== "boolean";
      fields.push([maskText(key, this.#limits.text), hidden ? REDACTED : this.value(value, depth)]);
      if (this.#left <= 0) break;
    }
    // fromEntries defines properties, so that a field named __proto__ stays a field.
    return Object.fromEntries(fields);
  }

  // Only these properties: drivers put whole rows, requests and headers on their errors.
  #error(error: Error, depth: number): object {
    const { code, reason, cause } = error as { code?: unknown; reason?: unknown; cause?: unknown };
    return this.#fields(
      Object.entries({
        type: error.name,
        message: error.message,
        stack: error.stack,
        code: typeof code === "object" ? undefined : code,
        reason: typeof reason === "object" ? undefined : reason,
        cause,
        errors: error instanceof AggregateError ? error.errors.slice(0, 10) : undefined,
      }).filter(([, value]) => value !== undefined),
      depth,
    );
  }
}

// Card and phone numbers also arrive as JSON numbers.
function maskNumber(value: number): number | string | null {
  if (!Number.isFinite(value)) return null;
  if (!Number.isInteger(value) || Math.abs(value) < 1e10) return value;
  const text = String(value);
  const masked = maskText(text);
  return masked === text ? value : masked;
}
