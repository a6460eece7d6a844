import type { Random } from "./random.ts";

const NUMBERS = [
  0, 1, -1, 2, 50, 200, 201, 10_000, 10_001, 2_147_483_647, -2_147_483_648, 2_147_483_648, 4_294_967_295,
] as const;
const LONGS = [0n, 1n, -1n, 1_000_000n, 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n)] as const;
const DOUBLES = [0, -0, 0.5, 2, 2.0001, 1e308, -1e308, 5e-324, Number.NaN, Number.POSITIVE_INFINITY] as const;
const LENGTHS = [0, 1, 63, 64, 65, 127, 128, 129, 200, 201, 255, 256, 257, 2049, 4001] as const;
const PIECES = ["a", "é", "界", "😀", " ", "\n", "%", "/", "'", '"', "\\", "..", "\u202e", "{}", "[[", "$1", "\u0000"];

/** What a fuzzed request may name beside junk: ids that exist, by the field's name. */
export type Known = Readonly<Record<string, readonly string[]>>;

export function anyNumber(random: Random): number {
  return random.chance(0.7) ? random.pick(NUMBERS) : random.below(1000);
}

export function anyLong(random: Random): bigint {
  return random.pick(LONGS);
}

export function anyDouble(random: Random): number {
  return random.pick(DOUBLES);
}

/** Text for a field: an id that exists, a boundary of length, or odd characters. */
export function anyText(random: Random, field: string, known: Known): string {
  const ids = known[field];
  if (ids !== undefined && random.chance(0.6)) return random.pick(ids);
  if (random.chance(0.3))
    return random.pick(["", "me", "x", "*", "true", "0", "null", "../..", "2026-01-01T00:00:00Z"]);
  if (random.chance(0.5)) return random.pick(PIECES).repeat(random.pick(LENGTHS));
  return Array.from({ length: 1 + random.below(12) }, () => random.pick(PIECES)).join("");
}

/** More than a limit somewhere allows; mostly a little, seldom more than a whole request may have. */
export function tooMuch(random: Random): number {
  if (random.chance(0.004)) return 4_300_000;
  return random.pick([5_000, 5_000, 5_000, 100_001, 130_000]);
}
