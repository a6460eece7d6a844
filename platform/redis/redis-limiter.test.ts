import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { createFaultProxy } from "../testing/fault-proxy.ts";
import { skipWithout } from "../testing/missing-server.ts";
import { privateRedis } from "../testing/private-redis.ts";
import { RedisLimiter, type RedisLimiterConfig } from "./redis-limiter.ts";

const take = { tenantId: "ten_a", key: "a", rate: 0.001, burst: 8 };

function limiterOf(url: string, config: Partial<RedisLimiterConfig> = {}) {
  const lines: string[] = [];
  const keep = (_: object, message: string) => void lines.push(message);
  const log = { info: keep, warn: keep };
  // Long, for busy machines, but in the tests of slowness.
  const limiter = new RedisLimiter({ url, log, commandTimeoutMs: 5_000, ...config });
  return Object.assign(limiter, { lines });
}

async function untilShared(limiter: RedisLimiter): Promise<void> {
  const probe = { ...take, tenantId: "ten_probe", cost: 0 };
  const deadline = performance.now() + 20_000;
  while ((await limiter.takeAll([probe])).by !== "all") {
    assert.ok(performance.now() < deadline, "Redis was not asked for 20 s");
    await sleep(5);
  }
}

async function countAllowed(limiter: RedisLimiter, calls: number, options = {}, what = take): Promise<number> {
  let allowed = 0;
  for (let i = 0; i < calls; i++) if ((await limiter.take(what, options)).allowed) allowed += 1;
  return allowed;
}

describe("RedisLimiter", { skip: skipWithout("redis-server"), concurrency: 2 }, () => {
  test("processes share a bucket, and every key expires", async () => {
    await using server = await privateRedis({ own: true });
    await using one = limiterOf(server.url);
    await using two = limiterOf(server.url);
    await Promise.all([untilShared(one), untilShared(two)]);
    const both = await Promise.all([one, two].map((limiter) => countAllowed(limiter, 20)));
    assert.equal(both[0]! + both[1]!, take.burst);
    const client = new Redis(server.url);
    const names = await client.keys("*");
    assert.deepEqual(names, ["am:rate:{ten_a}:a"]);
    assert.ok((await client.pttl(names[0]!)) > 0);
    client.disconnect();
  });

  test("the server is killed: a part of the limit holds here, at once and without an error; then it is shared again", async () => {
    await using server = await privateRedis({ own: true });
    await using limiter = limiterOf(server.url);
    await untilShared(limiter);
    await server.kill();
    const start = performance.now();
    assert.equal(await countAllowed(limiter, 50, { replicas: 4 }), take.burst / 4);
    assert.equal(await countAllowed(limiter, 50, { replicas: 100 }, { ...take, key: "b" }), 1, "at least one");
    assert.ok(performance.now() - start < 2_000, "an absent server is not waited for");
    await server.start();
    await untilShared(limiter);
    assert.deepEqual(limiter.lines, [
      "Redis cannot be asked; rate limits are this process's own",
      "Redis is back; rate limits are shared again",
    ]);
    assert.ok((await limiter.take({ ...take, key: "c" })).allowed);
  });

  test("neither losing Redis nor Redis losing its memory gives a second burst", async () => {
    await using server = await privateRedis({ own: true });
    await using limiter = limiterOf(server.url);
    await untilShared(limiter);
    assert.equal(await countAllowed(limiter, 5), 5);
    const client = new Redis(server.url);
    await client.flushall();
    client.disconnect();
    assert.equal(await countAllowed(limiter, 10), 3);
    await server.kill();
    assert.equal(await countAllowed(limiter, 10), 0);
  });

  test("the server is away at the start", async () => {
    await using server = await privateRedis({ own: true });
    await server.kill();
    await using limiter = limiterOf(server.url);
    assert.equal(await countAllowed(limiter, 20), take.burst);
    await server.start();
    await untilShared(limiter);
  });

  test("a black hole costs the command timeout a few times, then nothing; limits hold all the time", async () => {
    await using server = await privateRedis({ own: true });
    await using proxy = await createFaultProxy({ port: server.port });
    await using limiter = limiterOf(`redis://127.0.0.1:${proxy.port}`, { commandTimeoutMs: 250 });
    await untilShared(limiter);
    proxy.blackHole();
    const start = performance.now();
    assert.equal(await countAllowed(limiter, 100, { replicas: 2 }), take.burst / 2);
    assert.ok(performance.now() - start < 5_000);
    proxy.heal();
    await untilShared(limiter);
  });

  test("a server that refuses the script is no error and no open door", async () => {
    await using server = await privateRedis({ own: true });
    await using limiter = limiterOf(server.url);
    await untilShared(limiter);
    const client = new Redis(server.url);
    await client.config("SET", "maxmemory", "1");
    assert.equal(await countAllowed(limiter, 20), take.burst);
    await client.config("SET", "maxmemory", "0");
    await untilShared(limiter);
    client.disconnect();
  });

  test("after close it still limits", async () => {
    await using server = await privateRedis({ own: true });
    const limiter = limiterOf(server.url);
    await limiter.close();
    assert.equal(await countAllowed(limiter, 20), take.burst);
  });
});
