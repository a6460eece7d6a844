import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { OwedDeletions } from "./owed-deletions.ts";

const settled = () => new Promise(setImmediate);

describe("owed deletions", () => {
  test("are paid in batches when the server is back, and kept while it is not", async () => {
    let away = true;
    const batches: string[][] = [];
    const owed = new OwedDeletions(async (names) => {
      if (!away) batches.push(names);
      return !away;
    }, assert.fail);
    for (let i = 0; i < 1_200; i++) owed.add(`name ${i}`);
    owed.pay();
    await settled();
    assert.equal(owed.has("name 0"), true);
    away = false;
    owed.pay();
    await settled();
    assert.deepEqual(
      batches.map((batch) => batch.length),
      [500, 500, 200],
    );
    assert.equal(owed.has("name 1199"), false);
    owed.close();
  });

  test("a name that is owed again while it is being paid stays owed", async () => {
    const gate = Promise.withResolvers<boolean>();
    let calls = 0;
    const owed = new OwedDeletions(async () => (++calls === 1 ? gate.promise : true), assert.fail);
    owed.add("a");
    owed.pay();
    owed.add("a");
    gate.resolve(true);
    await settled();
    assert.equal(calls, 2);
    assert.equal(owed.has("a"), false);
    owed.close();
  });

  test("more than can be remembered are given up, oldest first, and that is told", () => {
    let forgotten = 0;
    const owed = new OwedDeletions(
      async () => false,
      () => void forgotten++,
    );
    for (let i = 0; i < 10_002; i++) owed.add(`name ${i}`);
    assert.equal(forgotten, 2);
    assert.deepEqual([owed.has("name 1"), owed.has("name 2"), owed.has("name 10001")], [false, true, true]);
    owed.close();
  });
});
