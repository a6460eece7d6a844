import { ToolError } from "#platform/plugin/tool-error.ts";

/** Of all demo data. */
export const CURRENCY = "USD";

/** Hundredths as text: 123456 is "1234.56". */
export function amountText(minor: number): string {
  const sign = minor < 0 ? "-" : "";
  const digits = String(Math.abs(minor)).padStart(3, "0");
  return `${sign}${digits.slice(0, -2)}.${digits.slice(-2)}`;
}

/** Most that one amount may be: 1 000 000.00. */
const MAX_MINOR = 100_000_000;

/** Hundredths of an amount that a model wrote as a number, such as 19.99. Throws ToolError for one that is no amount above 0. */
export function minorUnits(parameter: string, amount: number): number {
  const refuse = (problem: string): never => {
    throw new ToolError(`Parameter "${parameter}" ${problem}`);
  };
  if (!Number.isFinite(amount) || amount <= 0) refuse(`must be an amount above 0, such as 25.50.`);
  if (amount * 100 > MAX_MINOR) refuse(`must be at most ${amountText(MAX_MINOR)}.`);
  const minor = Math.round(amount * 100);
  // 19.99 * 100 is 1998.9999999999998: what counts is whether the decimal text has more than two places.
  if (Number(amountText(minor)) !== amount) refuse("must have two decimals at most.");
  return minor;
}
