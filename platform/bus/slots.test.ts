import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { Slots } from "./slots.ts";

const full = () => new Error("full");

describe("slots", () => {
  test("a caller who finds too many waiting is refused", async () => {
    const slots = new Slots(1, 1, full);
    const release = await slots.acquire();
    const waiting = slots.acquire();
    await assert.rejects(slots.acquire(), /full/);
    release();
    (await waiting)();
    (await slots.acquire())();
  });

  test("a waiter who leaves is skipped", async () => {
    const slots = new Slots(1, 10, full);
    const release = await slots.acquire();
    const leaving = new AbortController();
    const gone = slots.acquire(leaving.signal);
    const next = slots.acquire();
    leaving.abort(new Error("left"));
    await assert.rejects(gone, /left/);
    release();
    (await next)();
  });

  test("in any order of acquiring, releasing and leaving: never more than the slots, and none is lost", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.array(fc.nat(4), { maxLength: 40 }), async (size, steps) => {
        const slots = new Slots(size, 1_000, full);
        const held: (() => void)[] = [];
        const leavers: AbortController[] = [];
        const all: Promise<unknown>[] = [];
        for (const step of steps) {
          if (step <= 2) {
            const leaver = new AbortController();
            leavers.push(leaver);
            all.push(
              slots
                .acquire(leaver.signal)
                .then((release) => held.push(release))
                .catch(() => {}),
            );
          } else if (step === 3) held.pop()?.();
          else leavers.pop()?.abort(new Error("left"));
          // Some steps happen before the promises of the one before have run.
          if (step !== 1) await new Promise(setImmediate);
          assert.ok(held.length <= size);
        }
        for (const leaver of leavers) leaver.abort(new Error("left"));
        await Promise.all(all);
        for (const release of held) release();
        for (let i = 0; i < size; i++) await slots.acquire(AbortSignal.timeout(1_000));
      }),
      { numRuns: 200 },
    );
  });
});
