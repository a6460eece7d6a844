import { ToolError } from "#platform/plugin/tool-error.ts";
import { CONSTANTS, FUNCTIONS } from "./functions.ts";
import { add, divide, multiply, negate, power, ratio, remainder, type Value } from "./value.ts";

/** Characters of the longest expression. */
export const MAX_LENGTH = 1_000;
/** Levels of brackets, signs and powers inside one another. */
export const MAX_DEPTH = 64;

/**
 * The value of an arithmetic expression: + - * / % ^ with the usual precedence (a power binds tighter than the sign
 * before it, and to the right), brackets, functions and constants. Throws ToolError, with the position counted from 1.
 */
export function evaluate(expression: string): Value {
  if (expression.length > MAX_LENGTH) throw new ToolError(`The expression is longer than ${MAX_LENGTH} characters.`);
  return new Evaluation(inAscii(expression)).run();
}

const SIGNS: Record<string, string> = { "×": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "\u3000": " " };

/** Signs that people write, as those that are read; each is one character, so that positions stay right. */
function inAscii(text: string): string {
  return text.replace(/[×⋅÷−–\u3000\uff01-\uff5e]/g, (sign) => {
    return SIGNS[sign] ?? String.fromCharCode(sign.charCodeAt(0) - 0xfee0);
  });
}

class Evaluation {
  readonly #text: string;
  #at = 0;
  #depth = 0;
  /** Whether a comma separates arguments here, rather than thousands. */
  #inArguments = false;

  constructor(text: string) {
    // "1 + 1 =" is a question that people ask.
    this.#text = text.trimEnd().replace(/=\s*\??$/, "");
  }

  run(): Value {
    if (this.#text.trim() === "") throw new ToolError("The expression is empty.");
    const value = this.#sum();
    if (this.#peek() !== "") throw this.#unexpected();
    return value;
  }

  #sum(): Value {
    let value = this.#product();
    for (let sign = this.#take(/[+-]/y); sign !== undefined; sign = this.#take(/[+-]/y)) {
      const right = this.#product();
      value = add(value, sign === "+" ? right : negate(right));
    }
    return value;
  }

  #product(): Value {
    let value = this.#signed();
    for (let sign = this.#take(/\*(?!\*)|[/%]/y); sign !== undefined; sign = this.#take(/\*(?!\*)|[/%]/y)) {
      const left = value;
      const at = this.#at;
      // "10% - 3" may mean either, and a silent guess would be a wrong answer.
      if (sign === "%" && !/[\d.a-zπ(]/i.test(this.#peek())) {
        throw new ToolError(`Position ${at}: % is a remainder. Write 15/100 for 15 percent, and 7 % (-3) with a sign.`);
      }
      const right = this.#signed();
      value = located(at, () => (sign === "*" ? multiply : sign === "/" ? divide : remainder)(left, right));
    }
    return value;
  }

  #signed(): Value {
    if (++this.#depth > MAX_DEPTH) throw new ToolError(`The expression is nested more than ${MAX_DEPTH} levels deep.`);
    const sign = this.#take(/[+-]/y);
    const value = sign === undefined ? this.#power() : this.#signed();
    this.#depth--;
    return sign === "-" ? negate(value) : value;
  }

  #power(): Value {
    const base = this.#operand();
    if (this.#take(/\^|\*\*/y) === undefined) return base;
    const at = this.#at;
    const exponent = this.#signed();
    return located(at, () => power(base, exponent));
  }

  #operand(): Value {
    if (this.#take(/\(/y) !== undefined) return this.#bracketed(false, () => this.#sum());
    const grouped = this.#inArguments ? undefined : this.#take(/\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d*)?/y);
    const digits = grouped?.replaceAll(",", "") ?? this.#take(/(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?/iy);
    if (digits !== undefined) return numberOf(digits);
    const start = this.#skipSpace();
    const name = this.#take(/[a-zπ][a-z0-9_]*/iy)?.toLowerCase();
    if (name === undefined) throw this.#unexpected();
    return this.#take(/\(/y) === undefined ? this.#constant(name, start) : this.#called(name, start);
  }

  #constant(name: string, start: number): Value {
    const value = CONSTANTS.get(name);
    if (value !== undefined) return value;
    if (FUNCTIONS.has(name)) throw new ToolError(`Position ${this.#at + 1}: ${name} needs an argument in brackets.`);
    throw unknownName(name, start);
  }

  #called(name: string, start: number): Value {
    const called = FUNCTIONS.get(name);
    if (called === undefined) throw unknownName(name, start);
    const values = this.#bracketed(true, () => {
      const list: [Value, ...Value[]] = [this.#sum()];
      while (this.#take(/,/y) !== undefined) list.push(this.#sum());
      return list;
    });
    const { least, most } = called;
    if (values.length < least || values.length > most) {
      const wanted = least === most ? least : `${least} to ${most}`;
      throw new ToolError(`Position ${start + 1}: ${name} takes ${wanted} arguments, not ${values.length}.`);
    }
    return located(start + 1, () => called.run(...values));
  }

  #bracketed<T>(inArguments: boolean, inside: () => T): T {
    const outer = this.#inArguments;
    this.#inArguments = inArguments;
    const value = inside();
    if (this.#take(/\)/y) === undefined) throw this.#unexpected('")"');
    this.#inArguments = outer;
    return value;
  }

  #skipSpace(): number {
    while (/\s/.test(this.#text.charAt(this.#at))) this.#at++;
    return this.#at;
  }

  #peek(): string {
    return this.#text.charAt(this.#skipSpace());
  }

  /** What matches next, spaces apart, or undefined. */
  #take(token: RegExp): string | undefined {
    token.lastIndex = this.#skipSpace();
    const found = token.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #unexpected(expected?: string): ToolError {
    const at = this.#skipSpace();
    const [found] = this.#text.slice(at);
    const what = found === undefined ? "the expression ends too early" : `unexpected ${JSON.stringify(found)}`;
    return new ToolError(`Syntax error at position ${at + 1}: ${what}${expected ? `, expected ${expected}` : ""}.`);
  }
}

function numberOf(text: string): Value {
  const [, whole = "", fraction = "", exponent = "0"] = /^(\d*)\.?(\d*)(?:e(.+))?$/i.exec(text) ?? [];
  const digits = BigInt(whole + fraction);
  if (digits === 0n) return { n: 0n, d: 1n };
  // Beyond these it is out of range anyway, and would only cost time.
  const by = Math.max(-9_999, Math.min(9_999, Number(exponent))) - fraction.length;
  return by >= 0 ? ratio(digits * 10n ** BigInt(by)) : ratio(digits, 10n ** BigInt(-by));
}

function unknownName(name: string, start: number): ToolError {
  const shown = name.length > 20 ? `${name.slice(0, 20)}…` : name;
  const known = [...FUNCTIONS.keys(), "pi", "e"].join(", ");
  return new ToolError(`Unknown name "${shown}" at position ${start + 1}. Known are ${known}.`);
}

/** Adds the place to what went wrong in an operation. */
function located<T>(position: number, fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    throw error instanceof ToolError
      ? new ToolError(`${error.message.replace(/\.$/, "")} (at position ${position}).`)
      : error;
  }
}
