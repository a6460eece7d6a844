import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { skipWithout } from "../testing/missing-server.ts";
import { privateRedis, redisUrlVariable } from "../testing/private-redis.ts";
import { createPermits } from "./create-permits.ts";
import { describePermits } from "./permits.contract.ts";
import type { Permits } from "./permits.ts";

const log = { info: () => {}, warn: () => {} };

async function untilShared(permits: Permits): Promise<void> {
  const probe = { tenantId: "ten_probe", holder: "probe", limit: 1, leaseMs: 1_000 };
  const deadline = performance.now() + 20_000;
  while ((await permits.acquire(probe)).by !== "all") {
    assert.ok(performance.now() < deadline, "Redis was not asked for 20 s");
    await sleep(5);
  }
}

describePermits("EmbeddedPermits", async () => ({
  make: async () => createPermits({ log }),
  [Symbol.asyncDispose]: async () => {},
}));

describePermits(
  "RedisPermits",
  async () => {
    const redis = await privateRedis();
    return {
      make: async () => {
        const permits = createPermits({ log, url: redis.url, prefix: redis.prefix, commandTimeoutMs: 10_000 });
        await untilShared(permits);
        return permits;
      },
      [Symbol.asyncDispose]: () => redis[Symbol.asyncDispose](),
    };
  },
  { skip: skipWithout("redis-server", redisUrlVariable) },
);

describe("RedisPermits over faults", { skip: skipWithout("redis-server") }, () => {
  const want = { tenantId: "ten_a", limit: 8, leaseMs: 60_000, replicas: 4 };
  const make = (url: string) => createPermits({ log, url, commandTimeoutMs: 5_000 });

  test("two processes share a limit, and every key expires", async () => {
    await using server = await privateRedis({ own: true });
    await using one = make(server.url);
    await using two = make(server.url);
    await Promise.all([untilShared(one), untilShared(two)]);
    const all = await Promise.all(
      Array.from({ length: 40 }, (_, i) => (i % 2 ? one : two).acquire({ ...want, holder: `h${i}` })),
    );
    assert.equal(all.filter(({ granted }) => granted).length, want.limit);
    const client = new Redis(server.url);
    for (const key of await client.keys("*")) assert.ok((await client.pttl(key)) > 0, key);
    client.disconnect();
  });

  test("while Redis is away a part of the limit is granted here, and what is held then is entered when it is back", async () => {
    await using server = await privateRedis({ own: true });
    await using permits = make(server.url);
    await untilShared(permits);
    await server.kill();
    const answers = [];
    for (let i = 0; i < 6; i++) answers.push(await permits.acquire({ ...want, holder: `h${i}` }));
    assert.deepEqual(
      answers.map(({ granted }) => granted),
      [true, true, false, false, false, false],
    );
    assert.ok(answers.every(({ by }) => by === "this process"));
    await server.start();
    await untilShared(permits);
    assert.equal(await permits.held("ten_a"), 0);
    await permits.renew("ten_a", ["h0", "h1"], 60_000);
    assert.equal(await permits.held("ten_a"), 2);
  });
});
