import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { FairQueue } from "./fair-queue.ts";

const roomy = { maxWaiting: 100_000, maxWaitingPerTenant: 100_000 };

function drain(queue: FairQueue<number>): string[] {
  const order: string[] = [];
  for (let next = queue.take(); next !== undefined; next = queue.take()) order.push(`${next.tenantId}${next.item}`);
  return order;
}

describe("FairQueue", () => {
  test("tenants take turns, and one with a weight of two goes twice", () => {
    const queue = new FairQueue<number>(roomy);
    for (let i = 0; i < 4; i++) queue.push("a", 1, i);
    for (let i = 0; i < 4; i++) queue.push("b", 2, i);
    assert.deepEqual(drain(queue), ["a0", "b0", "b1", "a1", "b2", "b3", "a2", "a3"]);
  });

  test("a tenant with a thousand times the load delays a quiet one by one round at most", () => {
    const queue = new FairQueue<number>(roomy);
    for (let i = 0; i < 1_000; i++) queue.push("loud", 1, i);
    queue.push("quiet", 1, 0);
    queue.take();
    assert.equal(queue.take()?.tenantId, "quiet");
  });

  test("a tenant that may not go on is passed over and keeps its turn", () => {
    const queue = new FairQueue<number>(roomy);
    queue.push("a", 1, 0);
    queue.push("b", 1, 0);
    queue.push("b", 1, 1);
    assert.equal(queue.take((tenant) => tenant !== "a")?.tenantId, "b");
    assert.equal(queue.take()?.tenantId, "a");
    assert.equal(
      queue.take(() => false),
      undefined,
    );
    assert.equal(queue.size, 1);
  });

  test("it is bounded in all and per tenant, and what was taken back makes room", () => {
    const queue = new FairQueue<number>({ maxWaiting: 3, maxWaitingPerTenant: 2 });
    const first = queue.push("a", 1, 0);
    assert.ok(first !== undefined && queue.push("a", 1, 1));
    assert.equal(queue.push("a", 1, 2), undefined);
    assert.ok(queue.push("b", 1, 0));
    assert.equal(queue.push("b", 1, 1), undefined);
    assert.equal(queue.remove(first), true);
    assert.equal(queue.remove(first), false);
    assert.ok(queue.push("b", 1, 1));
    assert.equal(queue.waitingOf("a"), 1);
    assert.throws(() => queue.push("c", 0, 0), RangeError);
    assert.throws(() => queue.push("c", 1.5, 0), RangeError);
  });

  test("whatever is pushed, taken and taken back: nothing is lost or given twice, each lane keeps its order, shares follow weights", () => {
    const tenants = ["a", "b", "c"];
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.record({ push: fc.constantFrom(...tenants) }) },
      { weight: 2, arbitrary: fc.constant({ take: true as const }) },
      { weight: 1, arbitrary: fc.record({ back: fc.nat(20) }) },
    );
    const weights = fc.record({
      a: fc.integer({ min: 1, max: 4 }),
      b: fc.integer({ min: 1, max: 4 }),
      c: fc.constant(1),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), weights, (steps, weightOf) => {
        const queue = new FairQueue<number>(roomy);
        const inside: { tenantId: string; item: number }[] = [];
        let made = 0;
        for (const one of steps) {
          if ("push" in one) {
            const waiting = queue.push(one.push, weightOf[one.push as "a"], made++);
            assert.ok(waiting);
            inside.push(waiting);
          } else if ("take" in one) {
            const got = queue.take();
            if (got === undefined) assert.equal(inside.length, 0);
            else {
              assert.equal(
                inside.find(({ tenantId }) => tenantId === got.tenantId),
                got,
              );
              inside.splice(inside.indexOf(got), 1);
            }
          } else {
            const [back] = inside.splice(one.back, 1);
            if (back !== undefined) assert.equal(queue.remove(back), true);
          }
          assert.equal(queue.size, inside.length);
        }
        // While everybody has something waiting, nobody gets more than a round ahead of its share.
        for (const tenant of tenants) for (let i = 0; i < 60; i++) queue.push(tenant, weightOf[tenant as "a"], made++);
        const sum = weightOf.a + weightOf.b + weightOf.c;
        const got = new Map(tenants.map((tenant) => [tenant, 0]));
        for (let i = 0; i < 5 * sum; i++) {
          const { tenantId } = queue.take() as { tenantId: string };
          got.set(tenantId, (got.get(tenantId) ?? 0) + 1);
        }
        for (const tenant of tenants) {
          const weight = weightOf[tenant as "a"];
          assert.ok(
            Math.abs((got.get(tenant) ?? 0) - 5 * weight) <= weight,
            `${tenant} got ${got.get(tenant)} of ${weight}`,
          );
        }
      }),
      { numRuns: 300 },
    );
  });
});
