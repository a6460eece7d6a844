import { EmbeddedPermits, type EmbeddedPermitsConfig } from "./embedded-permits.ts";
import type { Permits } from "./permits.ts";
import { RedisPermits, type RedisPermitsConfig } from "./redis-permits.ts";

/** `url` is REDIS_URL; without it permits are this process's own. What only one of the two knows is ignored by the other. */
export type PermitsConfig = Omit<RedisPermitsConfig, "url"> & EmbeddedPermitsConfig & { url?: string | undefined };

/** The permits that the configuration names. It returns at once; the connection is made, and made again, in the background. */
export function createPermits({ url, ...config }: PermitsConfig): Permits {
  return url ? new RedisPermits({ ...config, url }) : new EmbeddedPermits(config);
}
