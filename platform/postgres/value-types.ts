import { types } from "pg";

/**
 * How column values become JavaScript values:
 *
 * | PostgreSQL | JavaScript |
 * |---|---|
 * | int8 (also `count(*)`) | number; a value beyond ±(2^53 − 1) throws RangeError instead of being rounded: cast such a column to text |
 * | numeric | string, for it is exact |
 * | timestamptz | Date (milliseconds: cast to text where microseconds matter, as in a cursor) |
 * | timestamp, date | string as PostgreSQL writes it, for it names no instant |
 * | json, jsonb | the parsed value |
 * | bytea | Buffer |
 * | everything else | as pg has it: int4 and float8 number, bool boolean, text string, arrays arrays |
 *
 * Parameters: Date, Buffer and Uint8Array, bigint, arrays (as PostgreSQL arrays) and plain objects (as JSON) go as they
 * are; a JSON array must be given as `JSON.stringify(value)`; undefined is NULL.
 */
export const valueTypes = { getTypeParser };

const int8Array = 1016;
const timestampArray = 1115;
const dateArray = 1182;
const textArray = 1009;

const asText = (value: string) => value;
const textArrayParser = types.getTypeParser(textArray as never, "text") as (value: string) => (string | null)[];

const own = new Map<number, (value: string) => unknown>([
  [types.builtins.INT8, safeInteger],
  [int8Array, (value) => textArrayParser(value).map((item) => (item === null ? null : safeInteger(item)))],
  [types.builtins.TIMESTAMP, asText],
  [types.builtins.DATE, asText],
  [timestampArray, textArrayParser],
  [dateArray, textArrayParser],
]);

function getTypeParser(oid: number, format?: "text" | "binary"): (value: string) => unknown {
  return (format !== "binary" && own.get(oid)) || types.getTypeParser(oid, format ?? "text");
}

function safeInteger(value: string): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw new RangeError("an int8 value is beyond what a number holds exactly; cast the column to text");
}
