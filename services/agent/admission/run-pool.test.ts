import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { EmbeddedPermits } from "#platform/redis/embedded-permits.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { type RunPermit, RunPool, type RunPoolOptions } from "./run-pool.ts";

const never = new AbortController().signal;

function poolOf(options: Partial<RunPoolOptions> = {}): RunPool {
  return new RunPool({
    permits: new EmbeddedPermits(),
    maxRuns: 2,
    maxWaiting: 100,
    maxWaitingPerTenant: 50,
    maxWaitMs: 60_000,
    leaseMs: 60_000,
    retryMs: 10,
    replicas: 1,
    ...options,
  });
}

let made = 0;
function enter(
  pool: RunPool,
  tenantId: string,
  more: { tenantLimit?: number; weight?: number; signal?: AbortSignal } = {},
) {
  return pool.enter({ tenantId, holder: `h${made++}`, tenantLimit: 100, weight: 1, signal: never, ...more });
}

const limitReached = (scope: string) => (error: unknown) =>
  error instanceof AppError &&
  error.code === Code.ResourceExhausted &&
  error.reason === "CONCURRENCY_LIMIT" &&
  error.facts["scope"] === scope &&
  (error.retryAfterMs ?? 0) >= 1_000;

async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await turn();
}

describe("RunPool", () => {
  test("work that can wait elsewhere gets a permit at once or none: not the last ones, not before who waits, not above its share", async () => {
    await using pool = poolOf({ maxRuns: 5 });
    const ask = (tenantId = "ten_a", tenantLimit = 100) =>
      pool.tryEnter({ tenantId, holder: `h${made++}`, tenantLimit });
    const held = [await ask(), await ask(), await ask()];
    assert.ok(held.every((permit) => permit !== undefined));
    assert.equal(await ask("ten_b", 0), undefined, "its tenant's share is used up");
    const fourth = await ask();
    assert.equal(await ask(), undefined, "a fifth of the process is kept for those who will not wait");
    await enter(pool, "ten_a");
    const waiting = enter(pool, "ten_a");
    await settle();
    assert.deepEqual(pool.use, { working: 5, waiting: 1 });
    fourth?.[Symbol.dispose]();
    (await waiting)[Symbol.dispose]();
    for (const permit of held) permit?.[Symbol.dispose]();
    await settle();
    assert.deepEqual(pool.use, { working: 1, waiting: 0 });
    const leaving = new AbortController();
    const parked = enter(pool, "ten_c", { tenantLimit: 0, signal: leaving.signal });
    await settle();
    assert.equal(await ask("ten_c"), undefined, "another run of its tenant waits for the share");
    assert.notEqual(await ask("ten_d"), undefined, "which is nothing to other tenants");
    leaving.abort();
    await assert.rejects(parked);
  });

  test("a run that its process has lost to itself holds one permit, until its newest work is over", async () => {
    const permits = new EmbeddedPermits();
    await using pool = poolOf({ permits });
    const first = await pool.enter({ tenantId: "ten_a", holder: "run_1", tenantLimit: 100, weight: 1, signal: never });
    const second = pool.adopt("ten_a", "run_1");
    first[Symbol.dispose]();
    await settle();
    assert.equal(await permits.held("ten_a"), 1);
    assert.deepEqual(pool.use, { working: 1, waiting: 0 });
    second[Symbol.dispose]();
    await settle();
    assert.equal(await permits.held("ten_a"), 0);
    assert.deepEqual(pool.use, { working: 0, waiting: 0 });
  });

  test("so many work at a time; the next one begins when one has ended", async () => {
    await using pool = poolOf();
    const [one, two] = [await enter(pool, "ten_a"), await enter(pool, "ten_a")];
    const third: RunPermit[] = [];
    const waiting = enter(pool, "ten_a").then((permit) => third.push(permit));
    await settle();
    assert.equal(third.length, 0);
    assert.deepEqual(pool.use, { working: 2, waiting: 1 });
    one[Symbol.dispose]();
    one[Symbol.dispose]();
    await waiting;
    two[Symbol.dispose]();
    third[0]?.[Symbol.dispose]();
    assert.deepEqual(pool.use, { working: 0, waiting: 0 });
  });

  test("a tenant at its own limit waits, and others go past it", async () => {
    await using pool = poolOf({ maxRuns: 3 });
    const one = await enter(pool, "ten_a", { tenantLimit: 1 });
    const blocked = enter(pool, "ten_a", { tenantLimit: 1 });
    const behind = enter(pool, "ten_a", { tenantLimit: 1 });
    await settle();
    const other = await enter(pool, "ten_b");
    assert.deepEqual(pool.use, { working: 2, waiting: 2 });
    one[Symbol.dispose]();
    (await blocked)[Symbol.dispose]();
    (await behind)[Symbol.dispose]();
    other[Symbol.dispose]();
    assert.deepEqual(pool.use, { working: 0, waiting: 0 });
  });

  test("a permit that another process gives back is found", async () => {
    const permits = new EmbeddedPermits();
    await using pool = poolOf({ permits });
    await permits.acquire({ tenantId: "ten_a", holder: "elsewhere", limit: 1, leaseMs: 60_000 });
    const waiting = enter(pool, "ten_a", { tenantLimit: 1 });
    await settle();
    assert.equal(pool.use.waiting, 1);
    await permits.release("ten_a", "elsewhere");
    (await waiting)[Symbol.dispose]();
  });

  test("a full queue and a wait that is too long are refused, and say whose limit it was and when to come again", async () => {
    await using pool = poolOf({ maxRuns: 1, maxWaiting: 2, maxWaitingPerTenant: 1, maxWaitMs: 40 });
    using _working = await enter(pool, "ten_a");
    const late = enter(pool, "ten_a");
    await assert.rejects(enter(pool, "ten_a"), limitReached("tenant"));
    const alsoLate = enter(pool, "ten_b");
    await assert.rejects(enter(pool, "ten_c"), limitReached("server"));
    await assert.rejects(late, AppError);
    await assert.rejects(alsoLate, AppError);
    assert.equal(pool.use.waiting, 0);
  });

  test("whoever leaves while waiting, or in the moment of being granted, keeps nothing", async () => {
    const permits = new EmbeddedPermits();
    await using pool = poolOf({ maxRuns: 1, permits });
    const one = await enter(pool, "ten_a");
    const controller = new AbortController();
    const gone = enter(pool, "ten_a", { signal: controller.signal });
    one[Symbol.dispose]();
    controller.abort(new Error("gone"));
    await assert.rejects(gone, /gone/);
    await settle();
    assert.deepEqual(pool.use, { working: 0, waiting: 0 });
    assert.equal(await permits.held("ten_a"), 0);
    await assert.rejects(enter(pool, "ten_a", { signal: AbortSignal.abort(new Error("before")) }), /before/);
  });

  test("a quiet tenant is not kept waiting by one with a thousand waiting", async () => {
    await using pool = poolOf({ maxRuns: 1, maxWaiting: 2_000, maxWaitingPerTenant: 1_500 });
    const order: string[] = [];
    const first = await enter(pool, "ten_loud");
    const all = Array.from({ length: 1_000 }, () => enter(pool, "ten_loud").then(note("loud")));
    all.push(enter(pool, "ten_quiet").then(note("quiet")));
    function note(who: string) {
      return (permit: RunPermit) => {
        order.push(who);
        permit[Symbol.dispose]();
      };
    }
    first[Symbol.dispose]();
    await Promise.all(all);
    assert.ok(order.indexOf("quiet") <= 1, `it came as number ${order.indexOf("quiet")}`);
  });

  test("whatever comes, waits, leaves and ends: never more than the limits, and nothing is held at the end", async () => {
    const step = fc.record({
      tenant: fc.constantFrom("ten_a", "ten_b", "ten_c"),
      what: fc.constantFrom("enter", "enter", "enter", "end", "leave", "turn"),
      which: fc.nat(10),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
        const permits = new EmbeddedPermits();
        await using pool = poolOf({ permits, maxRuns: 3, maxWaiting: 10, maxWaitingPerTenant: 5, retryMs: 1 });
        const held: RunPermit[] = [];
        const leaving: AbortController[] = [];
        const pending: Promise<unknown>[] = [];
        for (const { tenant, what, which } of steps) {
          if (what === "enter") {
            const controller = new AbortController();
            leaving.push(controller);
            const asked = enter(pool, tenant, { tenantLimit: 2, signal: controller.signal });
            pending.push(asked.then((permit) => held.push(permit)).catch(() => {}));
          } else if (what === "end") held.splice(which, 1)[0]?.[Symbol.dispose]();
          else if (what === "leave") leaving.splice(which, 1)[0]?.abort(new Error("left"));
          else await settle();
          assert.ok(held.length <= 3);
          for (const each of ["ten_a", "ten_b", "ten_c"]) assert.ok((await permits.held(each)) <= 2);
        }
        for (const controller of leaving) controller.abort(new Error("over"));
        await Promise.all(pending);
        for (const permit of held) permit[Symbol.dispose]();
        await settle();
        assert.deepEqual(pool.use, { working: 0, waiting: 0 });
        for (const each of ["ten_a", "ten_b", "ten_c"]) assert.equal(await permits.held(each), 0);
      }),
      { numRuns: 100 },
    );
  });
});
