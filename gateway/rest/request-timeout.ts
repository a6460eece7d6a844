import { invalidFields } from "#platform/rpc/errors.ts";

/**
 * The deadline that a caller asks for, in milliseconds: `X-Request-Timeout` in seconds, or Connect's
 * `Connect-Timeout-Ms`; the shorter of both. Throws FIELD_INVALID for what is no positive number or is too long.
 */
export function timeoutOf(header: Headers, maxMs: number): number | undefined {
  const seconds = read(header, "X-Request-Timeout", /^\d{1,7}(?:\.\d{1,6})?$/, 1000, maxMs);
  const ms = read(header, "Connect-Timeout-Ms", /^\d{1,10}$/, 1, maxMs);
  return seconds === undefined || ms === undefined ? (seconds ?? ms) : Math.min(seconds, ms);
}

function read(header: Headers, name: string, form: RegExp, unitMs: number, maxMs: number): number | undefined {
  const text = header.get(name);
  if (text === null) return undefined;
  const ms = Math.ceil(Number(text) * unitMs);
  if (form.test(text) && ms >= 1 && ms <= maxMs) return ms;
  throw invalidFields({ field: name, description: `must be a number above 0 and at most ${maxMs / unitMs}` });
}
