import type { Cache } from "./cache.ts";
import { EmbeddedCache, type EmbeddedCacheConfig } from "./embedded-cache.ts";
import { RedisCache, type RedisCacheConfig } from "./redis-cache.ts";

/** `url` is REDIS_URL; without it the cache is in this process. What only one of the two knows is ignored by the other. */
export type CacheConfig = Omit<RedisCacheConfig, "url"> & EmbeddedCacheConfig & { url?: string | undefined };

/** The cache that the configuration names. It returns at once; the connection is made, and made again, in the background. */
export function createCache({ url, ...config }: CacheConfig): Cache {
  return url ? new RedisCache({ ...config, url }) : new EmbeddedCache(config);
}
