import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";

/** A permit of a process that was killed while it asked for one ends with its lease. */
const LEASE_MS = 15_000;
const MARGIN_MS = 5_000;

/** Permits of all tenants that any process still holds once nobody works; waits until there are none, or no lease could excuse it. */
export async function permitsHeld(redisUrl: string): Promise<number> {
  const redis = new Redis(redisUrl);
  try {
    for (const until = Date.now() + LEASE_MS + MARGIN_MS; ; await sleep(200)) {
      const held = await count(redis);
      if (held === 0 || Date.now() > until) return held;
    }
  } finally {
    redis.disconnect();
  }
}

async function count(redis: Redis): Promise<number> {
  let held = 0;
  for (const key of await redis.keys("*permits:*")) held += await redis.zcount(key, Date.now(), "+inf");
  return held;
}
