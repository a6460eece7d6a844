import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Cache, CacheKey } from "./cache.ts";
import { cacheKey } from "./cache-key.ts";

/** Text that looks like what keys are made of, and any UTF-16 at all. */
const part = fc.oneof(
  fc.stringMatching(/^[0-9:,]{0,6}$/),
  fc.constantFrom("", "a", "1:a,"),
  fc.string({ unit: "binary" }),
);
const question = fc.record({
  tenantId: fc.constantFrom("ten_1", "ten_11", "platform"),
  namespace: fc.constantFrom("a", "a1", "agents"),
  version: fc.integer({ min: 1, max: 12 }),
  parts: fc.array(part, { maxLength: 4 }),
});

describe("cache keys", () => {
  test("different questions have different keys, equal ones the same", () => {
    fc.assert(
      fc.property(question, question, (a, b) => {
        const same = JSON.stringify(a) === JSON.stringify(b);
        assert.equal(cacheKey(a).id === cacheKey(b).id, same);
      }),
      { numRuns: 2_000 },
    );
  });

  test("a key tells its parts: it can be read back", () => {
    fc.assert(
      fc.property(question, (of) => {
        assert.deepEqual(read(cacheKey(of).id), [of.tenantId, of.namespace, String(of.version), ...of.parts]);
      }),
    );
  });

  test("moving text from one part to the next changes the key", () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.string({ minLength: 1 }), (left, right, moved) => {
        const one = cacheKey({ tenantId: "ten_1", namespace: "a", parts: [left + moved, right] });
        const other = cacheKey({ tenantId: "ten_1", namespace: "a", parts: [left, moved + right] });
        assert.notEqual(one.id, other.id);
      }),
    );
  });

  test("malformed tenants, namespaces, versions and too many parts are refused", () => {
    const good = { tenantId: "ten_1", namespace: "a", parts: [] };
    const bad = [
      { tenantId: "" },
      { tenantId: "1" },
      { tenantId: "ten_1\n" },
      { namespace: "A" },
      { namespace: "a}b" },
      { version: 0 },
      { version: 1.5 },
    ];
    for (const change of [...bad, { parts: Array(17).fill("") }])
      assert.throws(() => cacheKey({ ...good, ...change }), TypeError);
  });

  test("text and look-alikes are not keys: this does not compile", () => {
    const use = (_cache: Cache, _key: CacheKey) => {};
    const cache = undefined as unknown as Cache;
    // @ts-expect-error text is not a key
    use(cache, "ten_1:agents:a");
    // @ts-expect-error only cacheKey makes keys
    use(cache, { tenantId: "ten_1", namespace: "agents", id: "a" });
    // @ts-expect-error a method of the cache refuses text too
    assert.throws(() => cache.get("ten_1:agents:a"));
  });
});

function read(id: string): string[] {
  const parts: string[] = [];
  for (let at = 0; at < id.length; ) {
    const colon = id.indexOf(":", at);
    const end = colon + 1 + Number(id.slice(at, colon));
    parts.push(id.slice(colon + 1, end));
    assert.equal(id[end], ",");
    at = end + 1;
  }
  return parts;
}
