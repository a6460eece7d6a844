import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { RecentIds } from "./recent-ids.ts";

describe("recent ids", () => {
  test("an id is known within the window and forgotten after it", () => {
    let now = 0;
    const ids = new RecentIds(100, 10, () => now);
    ids.add("a");
    now = 99;
    assert.equal(ids.has("a"), true);
    now = 100;
    assert.equal(ids.has("a"), false);
  });

  test("only so many are kept, the oldest go first, and what is old goes with the next addition", () => {
    let now = 0;
    const ids = new RecentIds(100, 3, () => now);
    for (const id of ["a", "b", "c", "a", "d"]) ids.add(id);
    assert.deepEqual(
      ["a", "b", "c", "d"].filter((id) => ids.has(id)),
      ["a", "c", "d"],
    );
    assert.equal(ids.size, 3);
    now = 200;
    ids.add("e");
    assert.equal(ids.size, 1);
  });
});
