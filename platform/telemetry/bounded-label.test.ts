import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { BoundedLabel, OTHER } from "./bounded-label.ts";

describe("BoundedLabel", () => {
  test("gives a place to the first values and calls the rest other", () => {
    const label = new BoundedLabel(2);
    assert.deepEqual(
      ["a", "b", "c", "a", "c"].map((value) => label.use(value)),
      ["a", "b", OTHER, "a", OTHER],
    );
    assert.deepEqual([label.peek("b"), label.peek("c")], ["b", OTHER]);
    assert.equal(new BoundedLabel(1).use(""), "unknown");
    assert.equal(new BoundedLabel(1).use(undefined), "unknown");
  });

  test("gives the place of a quiet value to a busy one, once", () => {
    const label = new BoundedLabel(2);
    for (const value of ["quiet", "steady", "steady", "steady", "steady"]) label.use(value);
    for (let i = 0; i < 50; i++) label.use("busy");
    assert.deepEqual(label.rerank(), ["quiet"]);
    assert.equal(label.use("busy"), "busy");
    assert.equal(label.use("quiet"), OTHER);
    assert.deepEqual(label.rerank(), []);
  });

  test("lets equals keep their places", () => {
    const label = new BoundedLabel(1);
    for (let round = 0; round < 20; round++) {
      label.use("first");
      label.use("second");
      assert.deepEqual(label.rerank(), []);
    }
  });

  test("forgets traffic of long ago", () => {
    const label = new BoundedLabel(1);
    for (let i = 0; i < 1_000; i++) label.use("past");
    let rounds = 0;
    do {
      for (let i = 0; i < 20; i++) label.use("present");
      rounds++;
    } while (label.rerank().length === 0 && rounds < 50);
    assert.equal(label.peek("present"), "present");
    assert.ok(rounds > 1);
  });

  test("never has more than its limit of names, whatever comes", () => {
    const act = fc.oneof({ weight: 20, arbitrary: fc.nat(30) }, { weight: 1, arbitrary: fc.constant(undefined) });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), fc.array(act, { maxLength: 300 }), (limit, acts) => {
        const label = new BoundedLabel(limit);
        const named = new Set<string>();
        for (const value of acts) {
          if (value === undefined)
            for (const lost of label.rerank()) assert.ok(named.delete(lost) || label.peek(lost) === OTHER);
          else label.use(String(value));
          for (let i = 0; i <= 30; i++) if (label.peek(String(i)) !== OTHER) named.add(String(i));
          assert.ok(named.size <= limit);
        }
      }),
    );
  });
});
