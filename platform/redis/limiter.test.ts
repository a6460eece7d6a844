import { setTimeout as sleep } from "node:timers/promises";
import { skipWithout } from "../testing/missing-server.ts";
import { privateRedis, redisUrlVariable } from "../testing/private-redis.ts";
import { createLimiter } from "./create-limiter.ts";
import { describeLimiter } from "./limiter.contract.ts";

const log = { info: () => {}, warn: () => {} };

describeLimiter("EmbeddedLimiter", async () => ({
  make: async (options) => createLimiter({ log, ...options }),
  [Symbol.asyncDispose]: async () => {},
}));

describeLimiter(
  "RedisLimiter",
  async () => {
    const redis = await privateRedis();
    return {
      make: async (options) => {
        // On a busy machine an answer may take its time; how slow answers are treated has tests of its own.
        const config = { log, ...options, url: redis.url, prefix: redis.prefix, commandTimeoutMs: 10_000 };
        const limiter = createLimiter(config);
        const probe = { tenantId: "ten_probe", key: "probe", cost: 0, rate: 1, burst: 1 };
        while ((await limiter.takeAll([probe])).by !== "all") await sleep(5);
        return limiter;
      },
      [Symbol.asyncDispose]: () => redis[Symbol.asyncDispose](),
    };
  },
  { skip: skipWithout("redis-server", redisUrlVariable) },
);
