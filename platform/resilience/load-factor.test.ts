import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Load, LoadFactorMeter, watchLoad } from "./load-factor.ts";

const idle: Load = { eventLoopDelayMs: 1, heap: 0.1, queue: 0 };

function feed(meter: LoadFactorMeter, load: Load, times: number): number {
  for (let i = 0; i < times; i++) meter.add(load);
  return meter.factor;
}

describe("the load factor", () => {
  test("is 1 when idle, 0.7 when busy, 0.5 when overloaded, whichever of the three it is", () => {
    assert.equal(feed(new LoadFactorMeter(), idle, 10), 1);
    for (const busy of [{ eventLoopDelayMs: 200 }, { heap: 0.7 }, { queue: 0.7 }]) {
      assert.equal(feed(new LoadFactorMeter(), { ...idle, ...busy }, 10), 0.7, JSON.stringify(busy));
    }
    for (const full of [{ eventLoopDelayMs: 500 }, { heap: 0.9 }, { queue: 0.9 }]) {
      assert.equal(feed(new LoadFactorMeter(), { ...idle, ...full }, 10), 0.5, JSON.stringify(full));
    }
  });

  test("does not change for one sample, nor for samples that come and go", () => {
    const meter = new LoadFactorMeter();
    for (let i = 0; i < 20; i++) {
      assert.equal(feed(meter, { ...idle, heap: 0.95 }, 1), 1);
      assert.equal(feed(meter, idle, 1), 1);
    }
  });

  test("rises again one step at a time, after five calm samples", () => {
    const meter = new LoadFactorMeter();
    assert.equal(feed(meter, { ...idle, queue: 1 }, 2), 0.5);
    assert.equal(feed(meter, idle, 4), 0.5);
    assert.equal(feed(meter, idle, 1), 0.7);
    assert.equal(feed(meter, idle, 4), 0.7);
    assert.equal(feed(meter, idle, 1), 1);
  });

  test("stays where it is while the load is a little below the threshold", () => {
    const meter = new LoadFactorMeter();
    assert.equal(feed(meter, { ...idle, heap: 0.7 }, 2), 0.7);
    assert.equal(feed(meter, { ...idle, heap: 0.6 }, 100), 0.7);
    assert.equal(feed(meter, { ...idle, heap: 0.55 }, 5), 1);
  });

  test("of this process follows an event loop that is held up, and is told of", async () => {
    const changes: number[] = [];
    using watch = watchLoad({ queue: () => 0, intervalMs: 300, onChange: (factor) => void changes.push(factor) });
    const deadline = performance.now() + 30_000;
    while (watch.factor !== 0.5 && performance.now() < deadline) {
      const until = performance.now() + 700;
      while (performance.now() < until);
      await sleep(30);
    }
    assert.ok(changes.includes(0.5));
    while (watch.factor === 0.5 && performance.now() < deadline) await sleep(20);
    assert.equal(changes.at(-1), 0.7);
  });

  test("of this process counts the work in hand", { timeout: 60_000 }, async () => {
    let queue = 0.8;
    using watch = watchLoad({ queue: () => queue, intervalMs: 5, sample: () => ({ ...idle, queue }) });
    const deadline = performance.now() + 10_000;
    while (watch.factor === 1 && performance.now() < deadline) await sleep(5);
    assert.notEqual(watch.factor, 1);
    queue = 0;
    while (watch.factor !== 1 && performance.now() < deadline) await sleep(5);
    assert.equal(watch.factor, 1);
  });
});
