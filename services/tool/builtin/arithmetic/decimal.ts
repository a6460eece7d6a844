import { isExact, type Rational, toNumber, type Value } from "./value.ts";

/** Most digits of an exact result; longer ones are rounded. */
const MAX_DIGITS = 40;
/** Digits of a result that is rounded: as many as a double holds for sure. */
const ROUNDED_DIGITS = 15;

/** A value in decimal: exact where it has at most 40 digits, else rounded to 15. */
export function inDecimal(value: Value): { result: string; exact: boolean } {
  const whole = isExact(value) ? exactDecimal(value) : undefined;
  if (whole !== undefined) return { result: whole, exact: true };
  const rounded = Number(toNumber(value).toPrecision(ROUNDED_DIGITS));
  // Large and small ones as 1.5e30; -0 is nobody's answer.
  return { result: String(rounded + 0).replace("e+", "e"), exact: false };
}

/** All digits of a fraction, or undefined when there are too many of them or no end of them. */
function exactDecimal({ n, d }: Rational): string | undefined {
  let places = 0;
  let scaled = n;
  for (; scaled % d !== 0n; scaled *= 10n) if (++places > MAX_DIGITS) return undefined;
  const digits = (scaled / d)
    .toString()
    .replace("-", "")
    .padStart(places + 1, "0");
  if (digits.length > MAX_DIGITS + 1) return undefined;
  const point = digits.length - places;
  const fraction = places === 0 ? "" : `.${digits.slice(point)}`;
  return `${n < 0n ? "-" : ""}${digits.slice(0, point)}${fraction}`;
}
