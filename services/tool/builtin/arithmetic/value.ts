import { ToolError } from "#platform/plugin/tool-error.ts";

/** A fraction in lowest terms with a positive denominator. */
export interface Rational {
  readonly n: bigint;
  readonly d: bigint;
}

/** Exact while only + - * / % and whole powers were used; a number after that, or where a fraction grew too long. */
export type Value = Rational | number;

/** Bits of the largest numerator and denominator; whole numbers reach as far as a double does. */
const MAX_BITS = 1_024;
/** Bits of the largest power that is worked out before it is looked at. */
const MAX_POWER_BITS = 4_096;
/** What is left of a difference below this share of its sides is rounding, not an answer. */
const NOISE = 1e-15;

export function isExact(value: Value): value is Rational {
  return typeof value !== "number";
}

/** `n / d` as a value; `d` is not zero. */
export function ratio(n: bigint, d: bigint = 1n): Value {
  const sign = d < 0n ? -1n : 1n;
  const divisor = d === 1n ? 1n : gcd(n < 0n ? -n : n, d * sign);
  const reduced = { n: (n * sign) / divisor, d: (d * sign) / divisor };
  return bits(reduced.n) > MAX_BITS || bits(reduced.d) > MAX_BITS ? toNumber(reduced) : reduced;
}

/** The nearest double, give or take one. Throws when the value is too large or too small for one. */
export function toNumber(value: Value): number {
  if (!isExact(value)) return value;
  const { n, d } = value;
  if (n === 0n) return 0;
  const up = 64 - (bits(n) - bits(d));
  const quotient = up > 0 ? (n << BigInt(up)) / d : n / (d << BigInt(-up));
  // In two steps: 2 ** -up alone may be out of range where the product is not.
  const half = Math.trunc(up / 2);
  return inRange(Number(quotient) * 2 ** -half * 2 ** -(up - half));
}

/** A finite number that is not zero, or an error that says which way it left the range. */
export function inRange(x: number): number {
  if (Number.isNaN(x)) throw new ToolError("The result is not a real number.");
  if (!Number.isFinite(x)) throw new ToolError("Overflow: a result is larger than 1.8e308.");
  if (x === 0) throw new ToolError("Underflow: a result is too close to zero.");
  return x;
}

/** The decimal that a double stands for when it is shown: 15 digits, without binary noise. */
export function cleaned(value: Value): Rational {
  if (isExact(value)) return value;
  const [, sign = "", whole = "0", fraction = "", exponent = "0"] =
    /^(-?)(\d+)\.?(\d*)e([+-]\d+)$/.exec(value.toExponential(14)) ?? [];
  const power = Number(exponent) - fraction.length;
  const digits = BigInt(sign + whole + fraction);
  return power >= 0 ? { n: digits * 10n ** BigInt(power), d: 1n } : reduce({ n: digits, d: 10n ** BigInt(-power) });
}

export function add(a: Value, b: Value): Value {
  if (isExact(a) && isExact(b)) return ratio(a.n * b.d + b.n * a.d, a.d * b.d);
  const [left, right] = [toNumber(a), toNumber(b)];
  const sum = left + right;
  return Math.abs(sum) < NOISE * Math.max(Math.abs(left), Math.abs(right)) ? 0 : zeroOr(sum);
}

export function negate(a: Value): Value {
  return isExact(a) ? { n: -a.n, d: a.d } : -a;
}

export function multiply(a: Value, b: Value): Value {
  if (isExact(a) && isExact(b)) return ratio(a.n * b.n, a.d * b.d);
  if (isZero(a) || isZero(b)) return 0;
  return inRange(toNumber(a) * toNumber(b));
}

export function divide(a: Value, b: Value): Value {
  if (isZero(b)) throw new ToolError("Division by zero");
  if (isExact(a) && isExact(b)) return ratio(a.n * b.d, a.d * b.n);
  return isZero(a) ? 0 : inRange(toNumber(a) / toNumber(b));
}

/** What is left over by a division that is cut to a whole number; has the sign of `a`. */
export function remainder(a: Value, b: Value): Value {
  if (isZero(b)) throw new ToolError("Division by zero");
  if (isExact(a) && isExact(b)) return ratio((a.n * b.d) % (b.n * a.d), a.d * b.d);
  return zeroOr(toNumber(a) % toNumber(b));
}

export function power(base: Value, exponent: Value): Value {
  if (isZero(exponent)) return { n: 1n, d: 1n };
  if (isZero(base)) {
    if (isNegative(exponent)) throw new ToolError("Division by zero");
    return base;
  }
  if (isExact(base) && isExact(exponent) && exponent.d === 1n) {
    const by = exponent.n < 0n ? -exponent.n : exponent.n;
    const size = BigInt(Math.max(bits(base.n), bits(base.d)));
    const isUnit = base.d === 1n && (base.n === 1n || base.n === -1n);
    if (isUnit) return { n: by % 2n === 0n ? 1n : base.n, d: 1n };
    if (size * by <= MAX_POWER_BITS) {
      const [n, d] = [base.n ** by, base.d ** by];
      return exponent.n < 0n ? ratio(d, n) : ratio(n, d);
    }
  }
  return inRange(toNumber(base) ** toNumber(exponent));
}

/** Negative, zero or positive, as a sort wants it. */
export function compare(a: Value, b: Value): number {
  if (!isExact(a) || !isExact(b)) return toNumber(a) - toNumber(b);
  const [left, right] = [a.n * b.d, b.n * a.d];
  return left === right ? 0 : left < right ? -1 : 1;
}

export function isZero(a: Value): boolean {
  return isExact(a) ? a.n === 0n : a === 0;
}

export function isNegative(a: Value): boolean {
  return isExact(a) ? a.n < 0n : a < 0;
}

/** A sum may well be zero; then it is one without a sign. */
function zeroOr(x: number): number {
  return x === 0 ? 0 : inRange(x);
}

function reduce({ n, d }: Rational): Rational {
  const divisor = gcd(n < 0n ? -n : n, d);
  return { n: n / divisor, d: d / divisor };
}

function gcd(a: bigint, b: bigint): bigint {
  let [x, y] = [a, b];
  while (y !== 0n) [x, y] = [y, x % y];
  return x;
}

function bits(n: bigint): number {
  const hex = (n < 0n ? -n : n).toString(16);
  return hex.length * 4 - Math.clz32(Number.parseInt(hex.charAt(0), 16)) + 28;
}
