import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { reasonOf } from "../rpc/errors.ts";
import { createFaultProxy, type FaultProxy } from "../testing/fault-proxy.ts";
import { skipWithout } from "../testing/missing-server.ts";
import { type OwnRedis, privateRedis } from "../testing/private-redis.ts";
import type { CacheKey } from "./cache.ts";
import { cacheKey } from "./cache-key.ts";
import { cached } from "./cached.ts";
import { RedisCache, type RedisCacheConfig } from "./redis-cache.ts";

const minute = 60_000;
const namespace = { tenantId: "ten_a", namespace: "agents" };
const key = (part: string): CacheKey => cacheKey({ ...namespace, parts: [part] });

describe("RedisCache when the server misbehaves", { skip: skipWithout("redis-server"), concurrency: 2 }, () => {
  test("the server is killed and comes back: reads miss at once, writes are dropped, nobody sees an error", async () => {
    await using it = await Lab.open({ commandTimeoutMs: 250 });
    await it.cache.set(key("a"), "1", minute);
    await it.server.kill();
    await until(() => it.logged.length > 0);
    const start = performance.now();
    for (let i = 0; i < 50; i++) {
      assert.equal(await it.cache.get(key("a")), undefined);
      await it.cache.set(key("a"), "2", minute);
      await it.cache.delete(key("b"));
      await it.cache.invalidate(namespace);
      assert.equal(await cached(it.cache, key("c"), minute, async () => "loaded"), "loaded");
    }
    await assert.rejects(it.cache.ping(), (error) => reasonOf(error) === "DEPENDENCY_DOWN");
    assert.ok(performance.now() - start < 1_000, "an absent server is not waited for");
    assert.ok(it.troubles.has("read away") && it.troubles.has("invalidate away"));
    await it.server.start();
    await it.ready();
    await it.writeUntilKept("a");
    assert.deepEqual(it.logged, ["Redis cannot be reached; nothing is cached", "Redis connection is back"]);
  });

  test("the server is away at the start", async () => {
    await using server = await privateRedis({ own: true });
    await server.kill();
    await using it = new Lab(server);
    assert.equal(await it.cache.get(key("a")), undefined);
    await server.start();
    await it.ready();
    await it.writeUntilKept("a");
  });

  test("FLUSHALL empties the cache, and nothing from before comes back", async () => {
    await using it = await Lab.open();
    const before = await it.cache.lookup(key("a"));
    await it.cache.set(key("a"), "1", minute, before.generation);
    await it.client.flushall();
    assert.equal(await it.cache.get(key("a")), undefined);
    await it.cache.set(key("a"), "stale", minute, before.generation);
    assert.equal(await it.cache.get(key("a")), undefined);
    await it.cache.set(key("a"), "2", minute);
    assert.equal(await it.cache.get(key("a")), "2");
  });

  test("the namespace's own key is evicted: its entries are misses", async () => {
    await using it = await Lab.open();
    await it.cache.set(key("a"), "1", minute);
    const names = await it.client.keys("*");
    const generation = names.reduce((shortest, one) => (one.length < shortest.length ? one : shortest));
    await it.client.del(generation);
    assert.equal(await it.cache.get(key("a")), undefined);
  });

  test("a black hole costs the command timeout a few times, then nothing; the cache comes back when it ends", async () => {
    await using it = await Lab.behindProxy({ commandTimeoutMs: 250 });
    await it.cache.set(key("a"), "1", minute);
    it.proxy.blackHole();
    for (let i = 0; i < 8; i++) {
      const start = performance.now();
      assert.equal(await it.cache.get(key("a")), undefined);
      assert.ok(performance.now() - start < 1_000);
    }
    assert.ok(it.troubles.has("read timeout"));
    const start = performance.now();
    await Promise.all(Array.from({ length: 100 }, () => it.cache.get(key("a"))));
    assert.ok(performance.now() - start < 1_000);
    it.proxy.heal();
    await it.ready();
    await it.writeUntilKept("b");
  });

  test("a server that answers too late is left alone for most calls, and used again when it is fast", async () => {
    await using it = await Lab.behindProxy({ commandTimeoutMs: 150 });
    await it.cache.set(key("a"), "1", minute);
    it.proxy.latency(200);
    for (let i = 0; i < 40; i++) {
      assert.equal(await it.cache.get(key("a")), undefined);
      await sleep(5);
    }
    assert.ok(it.troubles.count("read timeout") < 12, `${it.troubles.count("read timeout")} calls waited`);
    assert.ok(it.troubles.has("read away"));
    it.proxy.heal();
    await it.ready();
    await it.writeUntilKept("b");
  });

  test("commands under way are bounded while the server hangs", async () => {
    await using it = await Lab.open({ maxInFlight: 3, commandTimeoutMs: 500 });
    await it.cache.set(key("a"), "1", minute);
    await it.server.freeze();
    const answers = await Promise.all(Array.from({ length: 10 }, () => it.cache.get(key("a"))));
    assert.deepEqual(new Set(answers), new Set([undefined]));
    assert.equal(it.troubles.count("read busy"), 7);
    it.server.thaw();
  });

  test("an invalidation that Redis could not be told holds for this process at once, and for all when Redis is back", async () => {
    await using it = await Lab.behindProxy();
    const other = it.another({ url: it.server.url });
    await it.ready(other);
    await it.cache.set(key("a"), "old", minute);
    await it.cache.set(key("b"), "old", minute);
    assert.equal(await other.get(key("a")), "old");
    it.proxy.refuse();
    it.proxy.reset();
    await it.cache.invalidate(namespace);
    await it.cache.delete(key("b"));
    assert.equal(await other.get(key("a")), "old", "the others do not know yet");
    it.proxy.heal();
    await until(async () => (await other.get(key("a"))) === undefined && (await other.get(key("b"))) === undefined);
    assert.equal(await it.cache.get(key("a")), undefined);
    await it.writeUntilKept("a");
    assert.equal(await other.get(key("a")), "kept");
  });

  test("a connection dies and nobody says so: it is found out and made anew", async () => {
    await using it = await Lab.behindProxy({ commandTimeoutMs: 250 });
    await it.writeUntilKept("a");
    it.proxy.halfOpen();
    await until(async () => (await it.cache.get(key("a"))) === "kept");
  });

  test("while an invalidation or deletion is owed, this process reads nothing under it, though Redis has it", async () => {
    await using it = await Lab.open();
    const other = it.another({});
    await it.ready(other);
    const aside = cacheKey({ tenantId: "ten_a", namespace: "tools", parts: [] });
    const another = cacheKey({ tenantId: "ten_a", namespace: "tools", parts: ["another"] });
    for (const each of [key("a"), aside, another]) await it.cache.set(each, "old", minute);
    await it.client.acl("SETUSER", "default", "-del");
    await it.cache.invalidate(namespace);
    await it.cache.delete(aside);
    assert.equal(await it.cache.get(key("a")), undefined);
    await it.cache.set(key("a"), "new", minute);
    assert.equal(await it.cache.get(key("a")), undefined);
    assert.equal(await it.cache.get(aside), undefined);
    assert.equal(await it.cache.get(another), "old");
    assert.equal(await other.get(key("a")), "old");
    await it.client.acl("SETUSER", "default", "+del");
    await until(async () => (await other.get(key("a"))) === undefined && (await other.get(aside)) === undefined);
    await it.writeUntilKept("a");
  });

  test("an invalidation whose answer was lost is repeated", async () => {
    await using it = await Lab.behindProxy({ commandTimeoutMs: 500 });
    const other = it.another({ url: it.server.url });
    await it.ready(other);
    await it.cache.set(key("a"), "old", minute);
    it.proxy.blackHole();
    await it.cache.invalidate(namespace);
    assert.equal(await it.cache.get(key("a")), undefined);
    it.proxy.reset();
    it.proxy.heal();
    await until(async () => (await other.get(key("a"))) === undefined);
  });

  test("processes share values and invalidations", async () => {
    await using it = await Lab.open();
    const other = it.another({});
    await it.ready(other);
    await it.cache.set(key("a"), "1", minute);
    assert.equal(await other.get(key("a")), "1");
    await other.invalidate(namespace);
    assert.equal(await it.cache.get(key("a")), undefined);
  });

  test("an entry of another tenant or of no known form under a key is a miss, and reported", async () => {
    await using it = await Lab.open();
    await it.cache.set(key("a"), "1", minute);
    const [entryName] = (await it.client.keys("*")).sort((a, b) => b.length - a.length);
    const entry = await it.client.get(entryName!);
    assert.match(entry!, /ten_a/);
    for (const bad of [entry!.replace("ten_a", "ten_b"), "garbage", `2${entry!.slice(1)}`, ""]) {
      await it.client.set(entryName!, bad);
      assert.equal(await it.cache.get(key("a")), undefined, bad);
    }
    assert.equal(it.troubles.count("read foreign"), 4);
    await it.client.set(entryName!, entry!);
    assert.equal(await it.cache.get(key("a")), "1");
  });

  test("nothing of a question or a value's owner but tenant and namespace is readable in a key, and every key expires", async () => {
    await using it = await Lab.open();
    await it.cache.set(key("canary-question"), "1", minute);
    const names = await it.client.keys("*");
    assert.equal(names.length, 2);
    for (const name of names) {
      assert.match(name, /^am:\{ten_a:agents\}/);
      assert.doesNotMatch(name, /canary/);
      assert.ok((await it.client.pttl(name)) > 0);
    }
  });

  test("a server that refuses writes still serves reads", async () => {
    await using it = await Lab.open();
    await it.cache.set(key("a"), "1", minute);
    await it.client.config("SET", "maxmemory", "1");
    await it.cache.set(key("b"), "1", minute);
    assert.equal(await it.cache.get(key("a")), "1");
    assert.equal(await it.cache.get(key("b")), undefined);
    assert.ok(it.troubles.has("write refused"));
  });

  test("a password opens the server; a wrong one is no way in, and neither is ever shown", async () => {
    await using it = await Lab.open();
    await it.client.config("SET", "requirepass", "canary-right");
    const withPassword = (password: string) => it.another({ url: it.server.url.replace("//", `//:${password}@`) });
    const good = withPassword("canary-right");
    await it.ready(good);
    const bad = withPassword("canary-wrong");
    await until(() => it.logged.length > 0);
    const shown = await bad.ping().catch((error: Error) => [error.message, Object.entries(error), String(error.cause)]);
    assert.equal(await bad.get(key("a")), undefined);
    assert.doesNotMatch(JSON.stringify([shown, it.entries]), /canary/);
    for (const url of ["http://canary@127.0.0.1", "canary", "redis://canary:1:2"]) {
      const refused = (error: Error) =>
        error instanceof TypeError && !JSON.stringify([error.message, Object.entries(error)]).includes("canary");
      assert.throws(() => it.another({ url }), refused);
    }
  });

  test("close leaves no socket and no timer, with the server there and without", async () => {
    const here = new URL(".", import.meta.url).href;
    const program = `
      import { RedisCache } from "${here}redis-cache.ts";
      import { cacheKey } from "${here}cache-key.ts";
      import { privateRedis } from "${here}../testing/private-redis.ts";
      const server = await privateRedis({ own: true });
      const log = { info() {}, warn() {} };
      const [one, two] = [new RedisCache({ url: server.url, log }), new RedisCache({ url: server.url, log })];
      const key = cacheKey({ tenantId: "ten_a", namespace: "n", parts: [] });
      while ((await one.get(key)) === undefined) {
        await one.set(key, "1", 60000);
        await new Promise((later) => setTimeout(later, 5));
      }
      await one.close();
      await server.kill();
      await two.invalidate(key);
      await two.close();
      await server.stop();
      process.stdout.write("closed ");
      process.once("exit", () => process.stdout.write("idle"));
    `;
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 20_000,
    });
    let said = "";
    child.stdout.on("data", (chunk: Buffer) => {
      said += chunk;
      if (said === "closed ") setTimeout(() => child.kill("SIGKILL"), 2_000).unref();
    });
    const [code] = await once(child, "close");
    assert.deepEqual([said, code], ["closed idle", 0]);
  });
});

/** Troubles by operation and reason. */
class Troubles {
  readonly #all: string[] = [];
  readonly add = ({ operation, why }: { operation: string; why: string }) => void this.#all.push(`${operation} ${why}`);

  count(what: string): number {
    return this.#all.filter((one) => one === what).length;
  }

  has(what: string): boolean {
    return this.count(what) > 0;
  }
}

/** A server of its own, caches on it, and a plain client. */
class Lab implements AsyncDisposable {
  readonly server: OwnRedis;
  readonly cache: RedisCache;
  readonly troubles = new Troubles();
  readonly entries: [object, string][] = [];
  readonly #caches: RedisCache[] = [];
  readonly #proxy: FaultProxy | undefined;
  #client: Redis | undefined;

  constructor(server: OwnRedis, config: Partial<RedisCacheConfig> = {}, proxy?: FaultProxy) {
    this.server = server;
    this.#proxy = proxy;
    this.cache = this.another(config);
  }

  static async open(config: Partial<RedisCacheConfig> = {}): Promise<Lab> {
    const lab = new Lab(await privateRedis({ own: true }), config);
    await lab.ready();
    return lab;
  }

  static async behindProxy(config: Partial<RedisCacheConfig> = {}): Promise<Lab> {
    const server = await privateRedis({ own: true });
    const proxy = await createFaultProxy(server);
    const lab = new Lab(server, { url: `redis://127.0.0.1:${proxy.port}`, ...config }, proxy);
    await lab.ready();
    return lab;
  }

  get proxy(): FaultProxy {
    return this.#proxy ?? assert.fail("this lab has no proxy");
  }

  get client(): Redis {
    this.#client ??= new Redis(this.server.url);
    return this.#client;
  }

  get logged(): string[] {
    return this.entries.map(([, message]) => message);
  }

  another(config: Partial<RedisCacheConfig>): RedisCache {
    const keep = (fields: object, message: string) => void this.entries.push([fields, message]);
    const cache = new RedisCache({
      url: this.server.url,
      log: { info: keep, warn: keep },
      onTrouble: this.troubles.add,
      // Long, for busy machines, but in the tests of slowness.
      commandTimeoutMs: 5_000,
      ...config,
    });
    this.#caches.push(cache);
    return cache;
  }

  ready(cache = this.cache): Promise<void> {
    return until(() =>
      cache.ping().then(
        () => true,
        () => false,
      ),
    );
  }

  /** After trouble the first writes may still be dropped. */
  writeUntilKept(part: string): Promise<void> {
    return until(async () => {
      await this.cache.set(key(part), "kept", minute);
      return (await this.cache.get(key(part))) === "kept";
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const cache of this.#caches) await cache.close();
    this.#client?.disconnect();
    await this.#proxy?.close();
    await this.server.stop();
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail("waited 20 s in vain");
    await sleep(5);
  }
}
