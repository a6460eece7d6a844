import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { CacheKey } from "./cache.ts";
import { cacheKey } from "./cache-key.ts";
import { EmbeddedCache } from "./embedded-cache.ts";

const key = (part: string): CacheKey => cacheKey({ tenantId: "ten_a", namespace: "n", parts: [part] });
const present = async (cache: EmbeddedCache, ...parts: string[]) => {
  const found = await Promise.all(parts.map(async (part) => ((await cache.get(key(part))) === undefined ? "" : part)));
  return found.join("");
};

describe("the embedded cache's bounds", () => {
  test("the least recently used value goes first", async () => {
    const cache = new EmbeddedCache({ maxEntries: 3 });
    for (const part of ["a", "b", "c"]) await cache.set(key(part), "1", 1_000);
    await cache.get(key("a"));
    await cache.set(key("b"), "2", 1_000);
    await cache.set(key("d"), "1", 1_000);
    assert.equal(await present(cache, "a", "b", "c", "d"), "abd");
  });

  test("bytes are bounded; a value that is larger than everything may be is not kept", async () => {
    const troubles: string[] = [];
    const cache = new EmbeddedCache({ maxBytes: 10_000, onTrouble: ({ why }) => void troubles.push(why) });
    await cache.set(key("a"), "x".repeat(2_000), 1_000);
    await cache.set(key("b"), "x".repeat(2_000), 1_000);
    assert.equal(await present(cache, "a", "b"), "ab");
    await cache.set(key("c"), "x".repeat(2_000), 1_000);
    assert.equal(await present(cache, "a", "b", "c"), "bc");
    await cache.set(key("d"), "x".repeat(6_000), 1_000);
    assert.equal(await present(cache, "b", "c", "d"), "bc");
    assert.deepEqual(troubles, ["too_large"]);
    // Replacing and deleting give the room back.
    for (let i = 0; i < 50; i++) await cache.set(key("b"), "x".repeat(2_000), 1_000);
    await cache.delete(key("b"));
    await cache.set(key("e"), "x".repeat(2_000), 1_000);
    assert.equal(await present(cache, "c", "e"), "ce");
  });

  test("time to live follows the monotonic clock that it is given", async () => {
    let now = 0;
    const cache = new EmbeddedCache({ now: () => now });
    await cache.set(key("a"), "1", 100);
    now = 99;
    assert.equal(await present(cache, "a"), "a");
    now = 100;
    assert.equal(await present(cache, "a"), "");
  });

  test("namespaces are bounded: one that drops out begins anew, empty", async () => {
    const cache = new EmbeddedCache();
    await cache.set(key("a"), "1", 1_000);
    const { generation } = await cache.lookup(key("a"));
    for (let i = 0; i <= 50_000; i++) await cache.lookup(cacheKey({ tenantId: `ten_${i}`, namespace: "n", parts: [] }));
    const after = await cache.lookup(key("a"));
    assert.equal(after.value, undefined);
    assert.notEqual(after.generation, generation);
  });
});
