import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { EmbeddedLimiter } from "./embedded-limiter.ts";
import { type Limiter, MAX_RATE } from "./limiter.ts";

/** Limiters of one mesh; `make` may be called several times. Every one starts empty when its fixture is new. */
export interface LimiterFixture extends AsyncDisposable {
  make(options: { nowMicros?: () => number }): Promise<Limiter>;
}

const base = { tenantId: "ten_a", key: "a" };

/** A clock that stands still until it is told. */
class Clock {
  micros = 1_700_000_000_000_000;
  readonly now = () => this.micros;
  pass(ms: number): void {
    this.micros += ms * 1000;
  }
}

/** What every limiter does. `open` gives each test a place of its own. */
export function describeLimiter(
  name: string,
  open: () => Promise<LimiterFixture>,
  options: { skip: string | false } = { skip: false },
): void {
  describe(name, { skip: options.skip, concurrency: true }, () => {
    const run = (title: string, body: (limiter: Limiter, clock: Clock) => Promise<void>) =>
      test(title, { timeout: 30_000 }, async () => {
        await using fixture = await open();
        const clock = new Clock();
        await using limiter = await fixture.make({ nowMicros: clock.now });
        await body(limiter, clock);
      });

    run("allows a burst, then refuses, and says how long to wait", async (limiter, clock) => {
      const take = { ...base, rate: 10, burst: 3 };
      assert.deepEqual(await limiter.take(take), { allowed: true, remaining: 2, resetMs: 100, retryAfterMs: 0 });
      assert.deepEqual(await limiter.take(take), { allowed: true, remaining: 1, resetMs: 200, retryAfterMs: 0 });
      assert.deepEqual(await limiter.take(take), { allowed: true, remaining: 0, resetMs: 300, retryAfterMs: 0 });
      const refused = { allowed: false, remaining: 0, resetMs: 300, retryAfterMs: 100 };
      assert.deepEqual(await limiter.take(take), refused);
      assert.deepEqual(await limiter.take(take), refused, "a refusal costs nothing");
      clock.pass(99);
      assert.deepEqual(await limiter.take(take), { allowed: false, remaining: 0, resetMs: 201, retryAfterMs: 1 });
      clock.pass(1);
      assert.deepEqual(await limiter.take(take), { allowed: true, remaining: 0, resetMs: 300, retryAfterMs: 0 });
      clock.pass(10_000);
      assert.equal((await limiter.take(take)).remaining, 2, "no more than the burst is saved up");
    });

    run("a cost takes so many units, and 0 only asks", async (limiter, clock) => {
      const take = { ...base, rate: 1, burst: 5 };
      assert.deepEqual(await limiter.take({ ...take, cost: 4 }), {
        allowed: true,
        remaining: 1,
        resetMs: 4000,
        retryAfterMs: 0,
      });
      assert.equal((await limiter.take({ ...take, cost: 2 })).retryAfterMs, 1000);
      for (let i = 0; i < 3; i++) assert.equal((await limiter.take({ ...take, cost: 0 })).allowed, true);
      assert.equal((await limiter.take(take)).allowed, true);
      assert.equal((await limiter.take({ ...take, cost: 0 })).allowed, false);
      clock.pass(1000);
      assert.equal((await limiter.take({ ...take, cost: 0 })).allowed, true);
    });

    run("tenants and keys have buckets of their own", async (limiter) => {
      const take = { ...base, rate: 1, burst: 1 };
      for (const other of [take, { ...take, key: "b" }, { ...take, tenantId: "ten_b" }]) {
        assert.equal((await limiter.take(other)).allowed, true);
        assert.equal((await limiter.take(other)).allowed, false);
      }
    });

    run("several buckets give together, or none does", async (limiter) => {
      const wide = { ...base, key: "wide", rate: 1, burst: 3 };
      const narrow = { ...base, key: "narrow", rate: 1, burst: 1 };
      const first = await limiter.takeAll([wide, narrow]);
      assert.equal(first.allowed, true);
      assert.deepEqual(
        first.taken.map(({ remaining }) => remaining),
        [2, 0],
      );
      const second = await limiter.takeAll([wide, narrow]);
      assert.equal(second.allowed, false);
      assert.deepEqual(
        second.taken.map(({ allowed, remaining }) => [allowed, remaining]),
        [
          [true, 2],
          [false, 0],
        ],
      );
      assert.equal((await limiter.take(wide)).remaining, 1);
    });

    run("a limit that is lowered holds at once, and nobody waits longer than its burst takes", async (limiter) => {
      const take = { ...base, rate: 1, burst: 100 };
      assert.equal((await limiter.take({ ...take, cost: 100 })).allowed, true);
      const lowered = await limiter.take({ ...take, rate: 10, burst: 10 });
      assert.deepEqual(lowered, { allowed: false, remaining: 0, resetMs: 1000, retryAfterMs: 100 });
    });

    run("concurrent callers get exactly the burst", async (limiter) => {
      const take = { ...base, rate: 1, burst: 20 };
      const answers = await Promise.all(Array.from({ length: 200 }, () => limiter.take(take)));
      assert.equal(answers.filter(({ allowed }) => allowed).length, 20);
      assert.deepEqual(
        new Set(answers.filter(({ allowed }) => allowed).map(({ remaining }) => remaining)),
        new Set(Array.from({ length: 20 }, (_, i) => i)),
      );
    });

    run("figures that make no sense are a RangeError", async (limiter) => {
      const good = { ...base, rate: 1, burst: 2 };
      const bad = [
        { rate: 0 },
        { rate: -1 },
        { rate: Number.NaN },
        { rate: MAX_RATE + 1 },
        { burst: 0 },
        { burst: 1.5 },
        { cost: -1 },
        { cost: 0.5 },
        { cost: 3 },
        { key: "" },
        { key: "x".repeat(201) },
        { tenantId: "" },
        { tenantId: "a}b" },
        { tenantId: "a b" },
      ];
      for (const each of bad)
        await assert.rejects(limiter.take({ ...good, ...each }), RangeError, JSON.stringify(each));
    });

    test("on real time what was spent comes back", { timeout: 30_000 }, async () => {
      await using fixture = await open();
      await using limiter = await fixture.make({});
      const take = { ...base, rate: 20, burst: 1 };
      assert.equal((await limiter.take(take)).allowed, true);
      const { allowed, retryAfterMs } = await limiter.take({ ...take, rate: 0.01 });
      assert.deepEqual([allowed, retryAfterMs > 0], [false, true]);
      const deadline = performance.now() + 20_000;
      while (!(await limiter.take(take)).allowed) {
        assert.ok(performance.now() < deadline, "it never came back");
        await sleep(5);
      }
    });

    const step = fc.record({
      waitMicros: fc.oneof(fc.constant(0), fc.nat(400_000), fc.constantFrom(1, 999, 1000, 333_333)),
      cost: fc.constantFrom(0, 1, 1, 1, 2),
    });
    const plan = fc.record({
      rate: fc.oneof(fc.constantFrom(3, 7, 10, 0.5, 1000), fc.double({ min: 0.1, max: 5000, noNaN: true })),
      burst: fc.integer({ min: 2, max: 8 }),
      steps: fc.array(step, { minLength: 1, maxLength: 40 }),
    });

    test("agrees with the embedded one, and never allows more than burst + rate · t", { timeout: 60_000 }, async () => {
      await using fixture = await open();
      const clock = new Clock();
      await using limiter = await fixture.make({ nowMicros: clock.now });
      let round = 0;
      await fc.assert(
        fc.asyncProperty(plan, async ({ rate, burst, steps }) => {
          const peer = new EmbeddedLimiter({ nowMicros: clock.now });
          round += 1;
          const key = `round ${round}`;
          const taken: { at: number; cost: number }[] = [];
          for (const { waitMicros, cost } of steps) {
            clock.micros += waitMicros;
            const take = { ...base, key, rate, burst, cost };
            const answer = await limiter.take(take);
            assert.deepEqual(answer, await peer.take(take));
            if (answer.allowed) taken.push({ at: clock.micros, cost });
          }
          for (const [i, { at: from }] of taken.entries()) {
            let sum = 0;
            for (const { at, cost } of taken.slice(i)) {
              sum += cost;
              assert.ok(sum <= burst + (rate * (at - from)) / 1e6 + 1e-6);
            }
          }
        }),
        { numRuns: 60 },
      );
    });
  });
}
