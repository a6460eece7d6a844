import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { EmbeddedLimiter } from "./embedded-limiter.ts";

describe("EmbeddedLimiter", () => {
  test("forgets full buckets, and keeps no more than it may", () => {
    let now = 0;
    const limiter = new EmbeddedLimiter({ maxBuckets: 10, nowMicros: () => now });
    const takeOf = (i: number) => limiter.takeNow([{ tenantId: "ten_a", key: String(i), rate: 1, burst: 1 }]);
    for (let i = 0; i < 100; i++) assert.equal(takeOf(i).allowed, true);
    assert.equal(limiter.size, 10);
    assert.equal(takeOf(99).allowed, false, "those used last are kept");
    now = 2_000_000;
    for (let i = 0; i < 5; i++) takeOf(1000 + i);
    assert.equal(limiter.size, 5);
  });
});
