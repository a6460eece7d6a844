import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { pickOfTwo } from "./pick.ts";
import { RetryBudget } from "./retry-budget.ts";

describe("the power of two choices", () => {
  const costs = fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { minLength: 2, maxLength: 20 });
  const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

  test("takes the cheaper of two different candidates, whatever chance says", () => {
    fc.assert(
      fc.property(costs, unit, unit, (all, first, second) => {
        const candidates = all.map((cost, id) => ({ cost, id }));
        const asked = new Set<(typeof candidates)[number]>();
        const draws = [first, second];
        const picked = pickOfTwo(
          candidates,
          (one) => {
            asked.add(one);
            return one.cost;
          },
          () => draws.shift() ?? assert.fail("a third draw"),
        );
        assert.equal(asked.size, 2);
        assert.equal(picked?.cost, Math.min(...[...asked].map(({ cost }) => cost)));
      }),
    );
  });

  test("never takes the dearest, and reaches all when they cost the same", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 8 }), (count) => {
        const ids = Array.from({ length: count }, (_, id) => id);
        const met = new Set<number | undefined>();
        for (let pick = 0; pick < 300; pick++) {
          met.add(pickOfTwo(ids, () => 1));
          assert.notEqual(
            pickOfTwo(ids, (id) => id),
            count - 1,
          );
        }
        assert.equal(met.size, count);
      }),
      { numRuns: 20 },
    );
  });

  test("takes the only one, and none of none", () => {
    assert.equal(
      pickOfTwo(["one"], () => 1),
      "one",
    );
    assert.equal(
      pickOfTwo([], () => 1),
      undefined,
    );
  });
});

describe("a retry budget", () => {
  test("allows at most its ratio of calls, besides what may be made at once", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.05, max: 0.5, noNaN: true }),
        fc.integer({ min: 0, max: 20 }),
        fc.array(fc.boolean(), { maxLength: 500 }),
        (ratio, burst, retries) => {
          const budget = new RetryBudget({ ratio, burst });
          let made = 0;
          let called = 0;
          for (const retry of retries) {
            if (retry) made += Number(budget.take());
            else {
              called += 1;
              budget.called();
            }
          }
          assert.ok(made <= called * ratio + burst + 1e-6, `${made} of ${called}`);
        },
      ),
    );
  });
});
