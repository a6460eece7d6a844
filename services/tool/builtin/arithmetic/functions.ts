import { ToolError } from "#platform/plugin/tool-error.ts";
import {
  cleaned,
  compare,
  inRange,
  isExact,
  isNegative,
  isZero,
  negate,
  type Rational,
  ratio,
  toNumber,
  type Value,
} from "./value.ts";

interface NamedFunction {
  readonly least: number;
  readonly most: number;
  run(...values: [Value, ...Value[]]): Value;
}

/** Most digits that round takes, on either side of the point. */
const MAX_DIGITS = 100;
/** What a double makes of the zeros of sine and cosine is below this. */
const NOISE = 1e-15;

const one = (run: (x: Value) => Value): NamedFunction => ({ least: 1, most: 1, run });
const many = (run: (...values: [Value, ...Value[]]) => Value): NamedFunction => ({ least: 1, most: 100, run });

/** Functions by name, in lower case. */
export const FUNCTIONS: ReadonlyMap<string, NamedFunction> = new Map([
  ["sqrt", one(squareRoot)],
  ["abs", one((x) => (isNegative(x) ? negate(x) : x))],
  ["round", { least: 1, most: 2, run: (x: Value, digits?: Value) => round(x, digits) }],
  ["floor", one((x) => likewise(x, ratio(floor(cleaned(x)))))],
  ["ceil", one((x) => likewise(x, ratio(-floor(cleaned(negate(x))))))],
  ["min", many((...values) => values.reduce((a, b) => (compare(b, a) < 0 ? b : a)))],
  ["max", many((...values) => values.reduce((a, b) => (compare(b, a) > 0 ? b : a)))],
  ["ln", one((x) => logarithm(x, Math.log))],
  ["log10", one((x) => logarithm(x, Math.log10))],
  ["exp", one((x) => (isZero(x) ? { n: 1n, d: 1n } : inRange(Math.exp(toNumber(x)))))],
  ["sin", one((x) => wave(x, Math.sin))],
  ["cos", one((x) => wave(x, Math.cos))],
  ["tan", one(tangent)],
]);

/** Constants by name, in lower case. */
export const CONSTANTS: ReadonlyMap<string, number> = new Map([
  ["pi", Math.PI],
  ["π", Math.PI],
  ["e", Math.E],
]);

function squareRoot(x: Value): Value {
  if (isNegative(x)) throw new ToolError("The square root of a negative number is not a real number.");
  if (isZero(x)) return x;
  if (isExact(x)) {
    const [n, d] = [wholeRoot(x.n), wholeRoot(x.d)];
    if (n * n === x.n && d * d === x.d) return { n, d };
  }
  return Math.sqrt(toNumber(x));
}

/** The largest whole number whose square is not larger (Newton). */
function wholeRoot(n: bigint): bigint {
  let root = 1n << BigInt(Math.ceil(n.toString(2).length / 2));
  for (;;) {
    const next = (root + n / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** To a number of digits after the point, before it when negative; halves go away from zero. */
function round(x: Value, digits: Value = { n: 0n, d: 1n }): Value {
  if (!isExact(digits) || digits.d !== 1n || digits.n > MAX_DIGITS || digits.n < -MAX_DIGITS) {
    throw new ToolError(`round takes a whole number of digits between -${MAX_DIGITS} and ${MAX_DIGITS}.`);
  }
  const exact = cleaned(x);
  const scale = 10n ** (digits.n < 0n ? -digits.n : digits.n);
  const scaled = digits.n < 0n ? { n: exact.n, d: exact.d * scale } : { n: exact.n * scale, d: exact.d };
  const size = scaled.n < 0n ? -scaled.n : scaled.n;
  const whole = floor({ n: 2n * size + scaled.d, d: 2n * scaled.d });
  const signed = scaled.n < 0n ? -whole : whole;
  return likewise(x, digits.n < 0n ? ratio(signed * scale) : ratio(signed, scale));
}

/** A result that is no more exact than what it was made from. */
function likewise(x: Value, result: Value): Value {
  return isExact(x) ? result : toNumber(result);
}

function floor({ n, d }: Rational): bigint {
  const cut = n / d;
  return n < 0n && cut * d !== n ? cut - 1n : cut;
}

function logarithm(x: Value, log: (x: number) => number): Value {
  if (isZero(x) || isNegative(x)) throw new ToolError("A logarithm needs a number greater than zero.");
  return isExact(x) && compare(x, { n: 1n, d: 1n }) === 0 ? { n: 0n, d: 1n } : inRange(log(toNumber(x)));
}

function wave(x: Value, fn: (x: number) => number): Value {
  const angle = toNumber(x);
  const height = fn(angle);
  return Math.abs(height) < NOISE && Math.abs(angle) > 1 ? 0 : height;
}

function tangent(x: Value): Value {
  const angle = toNumber(x);
  if (Math.abs(Math.cos(angle)) < NOISE) throw new ToolError("The tangent has no value there.");
  return wave(x, Math.tan);
}
