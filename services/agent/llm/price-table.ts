/** Prices of one model in nano-USD per million tokens, so that decimals stay exact. */
export interface Price {
  readonly input: bigint;
  readonly cacheRead: bigint;
  readonly cacheWrite: bigint;
  readonly output: bigint;
  /** Prices of the whole call when its prompt, cached tokens included, has more tokens than this. */
  readonly longPrompt?: Price & { readonly above: number };
}

export type PriceTable = ReadonlyMap<string, Price>;

const fields = ["input", "cache_read", "cache_write", "output"] as const;
const expected =
  "a map from model to input, cache_read, cache_write and output in USD per million tokens, with at most six decimals, " +
  "and optionally long_prompt with the same and above";

/**
 * Reads a table as it stands in prices.json and in the configuration: model → USD per million tokens of each class. Without
 * `cache_read` or `cache_write` those tokens cost what input costs. Throws a TypeError that says what is expected.
 */
export function readPrices(raw: unknown): PriceTable {
  return new Map(Object.entries(asMap(raw)).map(([model, price]) => [model, readPrice(asMap(price), model)]));
}

function readPrice(raw: Record<string, unknown>, where: string): Price {
  const known: readonly string[] = [...fields, "long_prompt", "above"];
  const stray = Object.keys(raw).find((name) => !known.includes(name));
  if (stray !== undefined) throw new TypeError(`${expected}; ${where} has ${stray}`);
  const input = nanoUsd(raw["input"], where);
  const price: Price = {
    input,
    cacheRead: raw["cache_read"] === undefined ? input : nanoUsd(raw["cache_read"], where),
    cacheWrite: raw["cache_write"] === undefined ? input : nanoUsd(raw["cache_write"], where),
    output: nanoUsd(raw["output"], where),
  };
  if (raw["long_prompt"] === undefined) return price;
  const long = asMap(raw["long_prompt"]);
  const above = Number(long["above"]);
  if (!Number.isSafeInteger(above) || above < 0) throw new TypeError(`${expected}; ${where}.long_prompt.above is not`);
  return { ...price, longPrompt: { ...readPrice(long, where), above } };
}

/** USD as a decimal → nano-USD. */
function nanoUsd(value: unknown, where: string): bigint {
  const [, whole, decimals = ""] = /^(\d{1,9})(?:\.(\d{1,6}))?$/.exec(String(value)) ?? [];
  if (whole === undefined) throw new TypeError(`${expected}; ${where} has ${JSON.stringify(value)}`);
  return BigInt(whole) * 1_000_000_000n + BigInt(decimals.padEnd(9, "0"));
}

function asMap(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new TypeError(expected);
  return value as Record<string, unknown>;
}
