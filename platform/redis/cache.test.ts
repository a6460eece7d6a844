import { setTimeout as sleep } from "node:timers/promises";
import { skipWithout } from "../testing/missing-server.ts";
import { privateRedis, redisUrlVariable } from "../testing/private-redis.ts";
import { describeCache } from "./cache.contract.ts";
import { createCache } from "./create-cache.ts";

const log = { info: () => {}, warn: () => {} };

describeCache("EmbeddedCache", async () => ({
  make: async (options) => createCache({ log, ...options }),
  [Symbol.asyncDispose]: async () => {},
}));

describeCache(
  "RedisCache",
  async () => {
    const redis = await privateRedis();
    return {
      make: async (options) => {
        // On a busy machine an answer may take its time; how slow answers are treated has tests of its own.
        const cache = createCache({ log, ...options, url: redis.url, prefix: redis.prefix, commandTimeoutMs: 10_000 });
        const ready = () =>
          cache.ping().then(
            () => true,
            () => false,
          );
        while (!(await ready())) await sleep(5);
        return cache;
      },
      [Symbol.asyncDispose]: () => redis[Symbol.asyncDispose](),
    };
  },
  { skip: skipWithout("redis-server", redisUrlVariable) },
);
