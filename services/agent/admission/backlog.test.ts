import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Backlog } from "./backlog.ts";

describe("what those are told who are refused for want of room", () => {
  const mine = { name: "ten_1", waiting: 0, width: 10 };

  test("is how long those in front of them take, between a second and a minute", () => {
    const backlog = new Backlog();
    backlog.ended(2_000);
    assert.equal(backlog.retryAfterMs({ ...mine, waiting: 99 }, 0), 20_000);
    assert.equal(backlog.retryAfterMs({ name: "ten_2", waiting: 0, width: 10 }, 0), 1_000);
    assert.equal(backlog.retryAfterMs({ name: "ten_3", waiting: 9_999, width: 1 }, 0), 60_000);
  });

  test("is an average of how long runs took", () => {
    const backlog = new Backlog();
    backlog.ended(10_000);
    for (let i = 0; i < 100; i++) backlog.ended(40_000);
    const told = backlog.retryAfterMs({ ...mine, waiting: 9 }, 0);
    assert.ok(told > 39_000 && told <= 40_000, String(told));
  });

  test("brings them back one by one, as runs end, and forgets what has passed", () => {
    const backlog = new Backlog();
    backlog.ended(20_000);
    const told = [0, 1, 2].map(() => backlog.retryAfterMs(mine, 0));
    assert.deepEqual(told, [2_000, 4_000, 6_000]);
    assert.equal(backlog.retryAfterMs({ ...mine, name: "ten_2" }, 0), 2_000, "others have room of their own");
    assert.equal(backlog.retryAfterMs(mine, 5_000), 3_000, "the room after the last promise");
    assert.equal(backlog.retryAfterMs(mine, 100_000), 2_000);
    for (let i = 0; i < 100; i++) backlog.retryAfterMs(mine, 200_000);
    assert.equal(backlog.retryAfterMs(mine, 200_000), 60_000);
    assert.equal(backlog.retryAfterMs(mine, 261_000), 2_000, "nothing is promised for longer than a minute");
  });

  test("remembers so many queues only", () => {
    const backlog = new Backlog();
    backlog.ended(20_000);
    for (let i = 0; i <= 1_000; i++) backlog.retryAfterMs({ ...mine, name: `ten_${i}` }, 0);
    assert.equal(backlog.retryAfterMs({ ...mine, name: "ten_0" }, 0), 2_000);
    assert.equal(backlog.retryAfterMs({ ...mine, name: "ten_1000" }, 0), 4_000);
  });
});
