import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Permits } from "./permits.ts";

export interface PermitsFixture extends AsyncDisposable {
  make(): Promise<Permits>;
}

const base = { tenantId: "ten_a", limit: 2, leaseMs: 60_000 };

/** What every implementation of {@link Permits} does. */
export function describePermits(
  name: string,
  open: () => Promise<PermitsFixture>,
  options: { skip?: string | false } = {},
) {
  describe(name, { skip: options.skip ?? false }, () => {
    const run = (what: string, body: (permits: Permits) => Promise<void>) =>
      test(what, { timeout: 30_000 }, async () => {
        await using fixture = await open();
        await using permits = await fixture.make();
        await body(permits);
      });

    run("grants up to the limit, per tenant, and again after a release", async (permits) => {
      const granted = async (holder: string, more = {}) =>
        (await permits.acquire({ ...base, holder, ...more })).granted;
      assert.deepEqual([await granted("1"), await granted("2"), await granted("3")], [true, true, false]);
      assert.equal(await granted("3", { tenantId: "ten_b" }), true);
      await permits.release("ten_a", "1");
      assert.equal(await permits.held("ten_a"), 1);
      assert.equal(await granted("3"), true);
      assert.equal(await granted("4", { limit: 0 }), false);
    });

    run("a holder that asks again keeps its one permit, also when the limit was lowered", async (permits) => {
      await permits.acquire({ ...base, holder: "1" });
      await permits.acquire({ ...base, holder: "2" });
      assert.deepEqual(await permits.acquire({ ...base, holder: "1", limit: 1 }), {
        granted: true,
        held: 2,
        by: "all",
      });
    });

    run("of many at the same time exactly the limit is granted", async (permits) => {
      const asked = Array.from({ length: 100 }, (_, i) => permits.acquire({ ...base, limit: 7, holder: `h${i}` }));
      assert.equal((await Promise.all(asked)).filter(({ granted }) => granted).length, 7);
      assert.equal(await permits.held("ten_a"), 7);
    });

    run(
      "a permit that nobody renews comes back; one that is renewed stays, also when it was forgotten",
      async (permits) => {
        await permits.acquire({ ...base, holder: "dead", leaseMs: 300 });
        await permits.acquire({ ...base, holder: "alive", leaseMs: 300 });
        const deadline = performance.now() + 20_000;
        while (!(await permits.acquire({ ...base, holder: "next" })).granted) {
          assert.ok(performance.now() < deadline, "the dead holder's permit never came back");
          await permits.renew("ten_a", ["alive"], 60_000);
          await sleep(20);
        }
        assert.equal((await permits.acquire({ ...base, holder: "one more" })).granted, false);
        await permits.renew("ten_a", ["forgotten"], 60_000);
        assert.equal(await permits.held("ten_a"), 3);
      },
    );

    run("releasing what nobody holds is no error, and nothing is left", async (permits) => {
      await permits.release("ten_a", "nobody");
      await permits.renew("ten_a", [], 1_000);
      assert.equal(await permits.held("ten_a"), 0);
    });

    run("figures that make no sense are a RangeError", async (permits) => {
      const bad = [{ limit: -1 }, { limit: 0.5 }, { leaseMs: 0 }, { holder: "" }, { tenantId: "a}b" }, { replicas: 0 }];
      for (const each of bad) {
        await assert.rejects(permits.acquire({ ...base, holder: "h", ...each }), RangeError, JSON.stringify(each));
      }
    });
  });
}
