import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { reasonOf } from "../rpc/errors.ts";
import { type Cache, type CacheKey, type CacheTrouble, maxTtlMs, maxValueBytes } from "./cache.ts";
import { cacheKey, platformTenant } from "./cache-key.ts";
import { cached } from "./cached.ts";

/** Caches of one mesh; `make` may be called several times. */
export interface CacheFixture extends AsyncDisposable {
  make(options: { onTrouble: (trouble: CacheTrouble) => void }): Promise<Cache>;
}

const tenantId = "ten_a";
const minute = 60_000;
const key = (...parts: string[]): CacheKey => cacheKey({ tenantId, namespace: "agents", parts });

/** What every cache does. `open` gives each test a place of its own. */
export function describeCache(
  name: string,
  open: () => Promise<CacheFixture>,
  options: { skip: string | false } = { skip: false },
): void {
  describe(name, { skip: options.skip, concurrency: true }, () => {
    const run = (title: string, body: (cache: Cache, troubles: CacheTrouble[]) => Promise<void>) =>
      test(title, { timeout: 30_000 }, async () => {
        await using fixture = await open();
        const troubles: CacheTrouble[] = [];
        await using cache = await fixture.make({ onTrouble: (trouble) => void troubles.push(trouble) });
        await body(cache, troubles);
      });

    run("a value is found under its key and under no other", async (cache, troubles) => {
      assert.equal(await cache.get(key("a")), undefined);
      await cache.set(key("a"), "1", minute);
      assert.equal(await cache.get(key("a")), "1");
      await cache.set(key("a"), "2", minute);
      assert.equal(await cache.get(key("a")), "2");
      const others = [
        key("b"),
        key("a", ""),
        key(),
        cacheKey({ tenantId, namespace: "agents", parts: ["a"], version: 2 }),
        cacheKey({ tenantId, namespace: "agents2", parts: ["a"] }),
        cacheKey({ tenantId: "ten_b", namespace: "agents", parts: ["a"] }),
        cacheKey({ tenantId: platformTenant, namespace: "agents", parts: ["a"] }),
      ];
      for (const other of others) assert.equal(await cache.get(other), undefined);
      assert.deepEqual(troubles, []);
    });

    run("any text comes back as it was, under any text", async (cache) => {
      const text = fc.string({ unit: "grapheme" });
      await fc.assert(
        fc.asyncProperty(text, fc.oneof(text, fc.constant("\n1\nten_b\n")), async (part, value) => {
          await cache.set(key(part), value, minute);
          assert.equal(await cache.get(key(part)), value);
        }),
        { numRuns: 50 },
      );
    });

    run("keys that differ only in lone surrogates are different keys", async (cache) => {
      await cache.set(key("\ud800"), "high", minute);
      await cache.set(key("\udc00"), "low", minute);
      assert.equal(await cache.get(key("\ud800")), "high");
      assert.equal(await cache.get(key("\udc00")), "low");
    });

    run("a value is gone when its time has passed", async (cache) => {
      await cache.set(key("short"), "1", 1_000);
      await cache.set(key("long"), "1", minute);
      assert.equal(await cache.get(key("short")), "1");
      await sleep(1_050);
      assert.equal(await cache.get(key("short")), undefined);
      assert.equal(await cache.get(key("long")), "1");
    });

    run("delete removes one value", async (cache) => {
      await cache.set(key("a"), "1", minute);
      await cache.set(key("b"), "1", minute);
      await cache.delete(key("a"));
      await cache.delete(key("never there"));
      assert.equal(await cache.get(key("a")), undefined);
      assert.equal(await cache.get(key("b")), "1");
    });

    run("invalidate removes a tenant's namespace and nothing else, and it can be used again", async (cache) => {
      const others = [
        cacheKey({ tenantId, namespace: "tools", parts: ["a"] }),
        cacheKey({ tenantId: "ten_ab", namespace: "agents", parts: ["a"] }),
      ];
      for (const each of [key("a"), key("b"), ...others]) await cache.set(each, "1", minute);
      await cache.invalidate({ tenantId, namespace: "agents" });
      assert.equal(await cache.get(key("a")), undefined);
      assert.equal(await cache.get(key("b")), undefined);
      for (const other of others) assert.equal(await cache.get(other), "1");
      await cache.set(key("a"), "2", minute);
      assert.equal(await cache.get(key("a")), "2");
      assert.equal(await cache.get(key("b")), undefined);
      await cache.invalidate({ tenantId, namespace: "never-used" });
    });

    run(
      "what was loaded before an invalidation is not served after it, even when it is stored after it",
      async (cache) => {
        const { value, generation } = await cache.lookup(key("a"));
        assert.equal(value, undefined);
        assert.ok(generation !== undefined);
        await cache.invalidate({ tenantId, namespace: "agents" });
        await cache.set(key("a"), "stale", minute, generation);
        assert.equal(await cache.get(key("a")), undefined);
        const again = await cache.lookup(key("a"));
        await cache.set(key("a"), "fresh", minute, again.generation);
        assert.equal(await cache.get(key("a")), "fresh");
      },
    );

    run("invalidations never bring an older value back", async (cache) => {
      const seen = new Set<string | undefined>();
      for (let i = 0; i < 20; i++) {
        const { generation } = await cache.lookup(key("a"));
        assert.equal(seen.has(generation), false);
        seen.add(generation);
        await cache.set(key("a"), String(i), minute, generation);
        await cache.invalidate({ tenantId, namespace: "agents" });
        assert.equal(await cache.get(key("a")), undefined);
      }
    });

    run(
      "too large a value is dropped, with the one that it would have replaced left or gone but never cut",
      async (cache, troubles) => {
        const largest = "x".repeat(maxValueBytes);
        await cache.set(key("a"), largest, minute);
        assert.equal(await cache.get(key("a")), largest);
        await cache.set(key("b"), `${largest}x`, minute);
        await cache.set(key("c"), "é".repeat(maxValueBytes / 2 + 1), minute);
        assert.equal(await cache.get(key("b")), undefined);
        assert.equal(await cache.get(key("c")), undefined);
        assert.deepEqual(troubles, [
          { operation: "write", why: "too_large" },
          { operation: "write", why: "too_large" },
        ]);
      },
    );

    run("a time to live out of bounds and a malformed namespace are TypeErrors", async (cache) => {
      for (const ttl of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, maxTtlMs + 1]) {
        await assert.rejects(cache.set(key("a"), "1", ttl), TypeError);
      }
      await assert.rejects(cache.invalidate({ tenantId: "", namespace: "agents" }), TypeError);
      await assert.rejects(cache.invalidate({ tenantId, namespace: "{x}" }), TypeError);
    });

    run(
      "cached loads once for all who ask at the same time, keeps the result, and gives each a copy of its own",
      async (cache) => {
        let loads = 0;
        const load = async () => {
          loads += 1;
          await sleep(30);
          return { list: [1, 2] };
        };
        const ask = () => cached(cache, key("a"), minute, load);
        const answers = [...(await Promise.all([ask(), ask(), ask()])), await ask()];
        assert.equal(loads, 1);
        for (const answer of answers) assert.deepEqual(answer, { list: [1, 2] });
        answers[0]?.list.push(3);
        assert.deepEqual(await ask(), { list: [1, 2] });
        assert.equal(new Set(answers).size, 4);
      },
    );

    run("cached keeps neither failures nor undefined", async (cache) => {
      let loads = 0;
      const fails = () => cached(cache, key("a"), minute, async () => Promise.reject(new Error(`load ${++loads}`)));
      await assert.rejects(fails(), /load 1/);
      await assert.rejects(fails(), /load 2/);
      const none = () => cached<string>(cache, key("a"), minute, async () => void loads++ as undefined);
      assert.equal(await none(), undefined);
      assert.equal(await none(), undefined);
      assert.equal(loads, 4);
    });

    run("cached: who asks after an invalidation does not get what an earlier load found", async (cache) => {
      const gate = Promise.withResolvers<void>();
      const loading = Promise.withResolvers<void>();
      const early = cached(cache, key("a"), minute, async () => {
        loading.resolve();
        await gate.promise;
        return "old";
      });
      await loading.promise;
      await cache.invalidate({ tenantId, namespace: "agents" });
      assert.equal(await cached(cache, key("a"), minute, async () => "new"), "new");
      gate.resolve();
      assert.equal(await early, "old");
      assert.match(String(await cached(cache, key("a"), minute, async () => "newest")), /^new/);
    });

    run("cached: an entry that cannot be decoded is loaded again, and a codec is used both ways", async (cache) => {
      const codec = { encode: (n: bigint) => `n${n}`, decode: (text: string) => BigInt(text.slice(1)) };
      await cache.set(key("a"), "garbage", minute);
      assert.equal(await cached(cache, key("a"), minute, async () => 12n, { codec }), 12n);
      assert.equal(await cache.get(key("a")), "n12");
      assert.equal(await cached(cache, key("a"), minute, async () => 13n, { codec }), 12n);
    });

    run("ping answers; after close nothing is found, kept or thrown, and ping says so", async (cache) => {
      await cache.ping();
      const reason = new Error("left");
      await assert.rejects(cache.ping(AbortSignal.abort(reason)), reason);
      await cache.set(key("a"), "1", minute);
      await cache.close();
      await cache.close();
      assert.equal(await cache.get(key("a")), undefined);
      await cache.set(key("a"), "1", minute);
      await cache.delete(key("a"));
      await cache.invalidate({ tenantId, namespace: "agents" });
      await assert.rejects(cache.ping(), (error) => reasonOf(error) === "DEPENDENCY_DOWN");
      assert.equal(await cached(cache, key("a"), minute, async () => "loaded"), "loaded");
    });
  });
}
