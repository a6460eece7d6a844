import type { Cache, CacheKey } from "./cache.ts";
import { SingleFlight } from "./single-flight.ts";

/** How values become text and back; `decode` throws when the text is not one that this release writes. */
export interface Codec<T> {
  encode(value: T): string;
  decode(text: string): T;
}

export interface CachedOptions<T> {
  signal?: AbortSignal | undefined;
  /** Default: JSON. */
  codec?: Codec<T> | undefined;
}

/** The loads of each cache of this process. */
const flights = new WeakMap<Cache, SingleFlight<string | undefined>>();

/**
 * The value under the key, from the cache or from `load`, which is called once for all who ask at the same time and whose
 * result is kept for `ttlMs`. `undefined` is not kept. Every caller gets a copy of its own.
 *
 * A caller who asks after an invalidation never gets what a load found that began before it. With the cache away every
 * load is still shared, and its result is as old as the load at most.
 */
export async function cached<T>(
  cache: Cache,
  key: CacheKey,
  ttlMs: number,
  load: (signal: AbortSignal) => Promise<T | undefined>,
  options: CachedOptions<T> = {},
): Promise<T | undefined> {
  const { signal, codec = json as Codec<T> } = options;
  signal?.throwIfAborted();
  const { value, generation } = await cache.lookup(key);
  const hit = value === undefined ? undefined : readable(codec, value);
  if (hit !== undefined) return hit.value;
  const flight = flights.get(cache) ?? new SingleFlight();
  flights.set(cache, flight);
  const text = await flight.run(
    `${generation ?? ""} ${key.id}`,
    async (loading) => {
      const loaded = await load(loading);
      if (loaded === undefined) return undefined;
      const encoded = codec.encode(loaded);
      if (generation !== undefined) await cache.set(key, encoded, ttlMs, generation);
      return encoded;
    },
    signal,
  );
  return text === undefined ? undefined : codec.decode(text);
}

const json: Codec<unknown> = { encode: (value) => JSON.stringify(value), decode: (text) => JSON.parse(text) };

/** An entry that another release wrote in another form is a miss. */
function readable<T>(codec: Codec<T>, text: string): { value: T } | undefined {
  try {
    return { value: codec.decode(text) };
  } catch {
    return undefined;
  }
}
