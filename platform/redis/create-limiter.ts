import { EmbeddedLimiter, type EmbeddedLimiterConfig } from "./embedded-limiter.ts";
import type { Limiter } from "./limiter.ts";
import { RedisLimiter, type RedisLimiterConfig } from "./redis-limiter.ts";

/** `url` is REDIS_URL; without it limits are this process's own. What only one of the two knows is ignored by the other. */
export type LimiterConfig = Omit<RedisLimiterConfig, "url"> & EmbeddedLimiterConfig & { url?: string | undefined };

/** The limiter that the configuration names. It returns at once; the connection is made, and made again, in the background. */
export function createLimiter({ url, ...config }: LimiterConfig): Limiter {
  return url ? new RedisLimiter({ ...config, url }) : new EmbeddedLimiter(config);
}
