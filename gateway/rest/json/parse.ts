import { type Json, JsonNumber } from "./value.ts";

export interface ParseLimits {
  /** Deepest nesting of objects and lists; a scalar alone has depth 0. */
  readonly maxDepth: number;
  /** Longest number, in characters: converting digits to integers takes quadratic time. */
  readonly maxNumberLength: number;
}

/** Text that is no JSON, or JSON that nobody should send. The message says what and where, and quotes nothing of the text. */
export class MalformedJson extends Error {
  override readonly name = "MalformedJson";
}

/**
 * Reads JSON as RFC 8259 and I-JSON (RFC 7493) have it: no duplicate names, no unpaired surrogates, no byte order mark,
 * nothing after the value. Throws MalformedJson.
 */
export function parseJson(text: string, limits: ParseLimits): Json {
  return new Parser(text, limits).document();
}

/** The same from bytes, which must be UTF-8. */
export function parseJsonBytes(bytes: Uint8Array, limits: ParseLimits): Json {
  return parseJson(decodeUtf8(bytes), limits);
}

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: RFC 8259 §7 names them
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const HEX = /[0-9a-fA-F]{4}/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

class Parser {
  readonly #text: string;
  readonly #limits: ParseLimits;
  #at = 0;
  #depth = 0;

  constructor(text: string, limits: ParseLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  document(): Json {
    if (this.#text.startsWith("\uFEFF")) throw this.#malformed("it begins with a byte order mark");
    this.#skipSpace();
    const value = this.#value();
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#malformed("something follows the value");
    return value;
  }

  #value(): Json {
    switch (this.#text[this.#at]) {
      case "{":
        return this.#nested(() => this.#object());
      case "[":
        return this.#nested(() => this.#list());
      case '"':
        return this.#string();
      case "t":
        return this.#word("true", true);
      case "f":
        return this.#word("false", false);
      case "n":
        return this.#word("null", null);
      default:
        return this.#number();
    }
  }

  #nested<T>(read: () => T): T {
    this.#depth += 1;
    if (this.#depth > this.#limits.maxDepth) {
      throw this.#malformed(`it is nested deeper than ${this.#limits.maxDepth} levels`);
    }
    this.#at += 1;
    this.#skipSpace();
    const value = read();
    this.#depth -= 1;
    return value;
  }

  #object(): Json {
    const members = new Map<string, Json>();
    if (this.#take("}")) return members;
    for (;;) {
      const begin = this.#at;
      if (this.#text[begin] !== '"') throw this.#malformed("a name in double quotes is expected");
      const name = this.#string();
      if (members.has(name)) throw this.#malformed("a name occurs twice in one object", begin);
      this.#skipSpace();
      if (!this.#take(":")) throw this.#malformed("':' is expected");
      this.#skipSpace();
      members.set(name, this.#value());
      this.#skipSpace();
      if (this.#take("}")) return members;
      if (!this.#take(",")) throw this.#malformed("',' or '}' is expected");
      this.#skipSpace();
    }
  }

  #list(): Json {
    const items: Json[] = [];
    if (this.#take("]")) return items;
    for (;;) {
      items.push(this.#value());
      this.#skipSpace();
      if (this.#take("]")) return items;
      if (!this.#take(",")) throw this.#malformed("',' or ']' is expected");
      this.#skipSpace();
    }
  }

  #string(): string {
    this.#at += 1;
    let value = this.#match(PLAIN);
    let escapedUnit = -1;
    while (!this.#take('"')) {
      if (this.#text[this.#at] !== "\\") {
        throw this.#malformed(
          this.#at < this.#text.length ? "a control character must be escaped" : "a string has no end",
        );
      }
      if (this.#text[this.#at + 1] === "u" && escapedUnit < 0) escapedUnit = this.#at;
      value += this.#escape();
      value += this.#match(PLAIN);
    }
    if (escapedUnit >= 0 && !value.isWellFormed()) {
      throw this.#malformed("a string has half of a surrogate pair", escapedUnit);
    }
    return value;
  }

  #escape(): string {
    const letter = this.#text[this.#at + 1] ?? "";
    if (letter === "u") {
      this.#at += 2;
      const hex = this.#match(HEX);
      if (hex === "") throw this.#malformed("four hexadecimal digits are expected");
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const value = Object.hasOwn(ESCAPES, letter) ? ESCAPES[letter] : undefined;
    if (value === undefined) throw this.#malformed("no such escape in a string");
    this.#at += 2;
    return value;
  }

  #number(): JsonNumber {
    const begin = this.#at;
    const text = this.#match(NUMBER);
    if (text === "") throw this.#malformed(begin < this.#text.length ? "a value is expected" : "it ends too early");
    if (text.length > this.#limits.maxNumberLength) {
      throw this.#malformed(`a number has more than ${this.#limits.maxNumberLength} characters`, begin);
    }
    return new JsonNumber(text);
  }

  #word<T>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#malformed("a value is expected");
    this.#at += word.length;
    return value;
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at += 1;
    return true;
  }

  #skipSpace(): void {
    this.#match(SPACE);
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [found = ""] = pattern.exec(this.#text) ?? [];
    this.#at += found.length;
    return found;
  }

  #malformed(problem: string, at = this.#at): MalformedJson {
    const before = this.#text.slice(0, at);
    const line = before.split("\n").length;
    const column = at - before.lastIndexOf("\n");
    const where =
      at < this.#text.length ? `line ${line}, column ${column}` : `the end (line ${line}, column ${column})`;
    return new MalformedJson(`${problem}, at ${where}`);
  }
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new MalformedJson(`it is not valid UTF-8, at byte ${firstInvalidByte(bytes)}`);
  }
}

/** A lossy decoder writes U+FFFD for what is invalid; the first one that is not in the bytes themselves is the place. */
function firstInvalidByte(bytes: Uint8Array): number {
  const lossy = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  let offset = 0;
  let from = 0;
  for (let at = lossy.indexOf("\uFFFD"); at >= 0; at = lossy.indexOf("\uFFFD", at + 1)) {
    offset += Buffer.byteLength(lossy.slice(from, at));
    from = at;
    if (bytes[offset] !== 0xef || bytes[offset + 1] !== 0xbf || bytes[offset + 2] !== 0xbd) return offset;
  }
  return offset;
}
