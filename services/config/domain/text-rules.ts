import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { FieldViolation } from "#platform/rpc/errors.ts";

/** Largest settings object, as JSON text in bytes. */
const MAX_OBJECT_BYTES = 64 * 1024;
/** Deepest nesting of a settings object. */
const MAX_OBJECT_DEPTH = 16;

/** Line separators, what turns the direction of text round, and tag characters, which hide text from people. */
const DECEPTIVE = /[\u2028\u2029\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/u;

/** Whether a text can be an opaque id of the caller's: one line that can be stored. */
export function isOpaqueId(text: string): boolean {
  return text !== "" && !/\p{Cc}/u.test(text) && text.isWellFormed();
}

/** BCP 47, as ECMA-402 understands it. */
export function isLanguageTag(tag: string): boolean {
  try {
    return tag.length <= 35 && new Intl.Locale(tag).baseName !== "";
  } catch {
    return false;
  }
}

/** A zone of the IANA time zone database, in any case; no mere offset such as +01:00. */
export function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }) !== undefined;
  } catch {
    return false;
  }
}

/** Collects what is wrong with the fields of one message. */
export class Violations {
  readonly found: FieldViolation[] = [];
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  add(field: string, description: string): void {
    this.found.push({ field: `${this.#prefix}.${field}`, description });
  }

  /** A name or another single line. */
  line(field: string, text: string): void {
    if (/\p{Cc}/u.test(text)) this.add(field, "control characters are not allowed");
  }

  /** A short line that becomes a part of prompts: it must be what it looks like. */
  plainLine(field: string, text: string): void {
    if (/\p{Cc}/u.test(text) || DECEPTIVE.test(text) || !text.isWellFormed()) {
      this.add(field, "control characters, line separators and characters that hide or turn text are not allowed");
    }
  }

  lines(field: string, texts: readonly string[]): void {
    for (const [i, text] of texts.entries()) this.line(`${field}[${i}]`, text);
  }

  /** Text of any length and shape; U+0000 and halves of surrogate pairs cannot be stored. */
  text(field: string, text: string): void {
    if (text.includes("\0") || !text.isWellFormed()) this.add(field, "U+0000 and broken Unicode are not allowed");
  }

  /** A settings object: small, shallow, and such that JSON can hold it. */
  object(field: string, value: JsonObject | undefined): void {
    const problem = value === undefined ? undefined : objectProblem(value, 1);
    if (problem !== undefined) this.add(field, problem);
    else if (value !== undefined && Buffer.byteLength(JSON.stringify(value)) > MAX_OBJECT_BYTES) {
      this.add(field, `must not be larger than ${MAX_OBJECT_BYTES} bytes of JSON`);
    }
  }
}

function objectProblem(value: JsonValue, depth: number): string | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? undefined : "numbers must be finite";
  if (typeof value === "string") return textProblem(value);
  if (value === null || typeof value !== "object") return undefined;
  if (depth > MAX_OBJECT_DEPTH) return `must not be nested deeper than ${MAX_OBJECT_DEPTH} levels`;
  for (const [key, inner] of Object.entries(value)) {
    const problem = textProblem(key) ?? objectProblem(inner, depth + 1);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function textProblem(text: string): string | undefined {
  return text.includes("\0") || !text.isWellFormed() ? "U+0000 and broken Unicode are not allowed" : undefined;
}
