import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { assertPattern, assertSubject, matches, overlap } from "./subjects.ts";

const word = fc.constantFrom("a", "b", "run");
const subject = fc.array(word, { minLength: 1, maxLength: 4 }).map((parts) => ["agentmesh", ...parts].join("."));
const pattern = fc
  .tuple(fc.array(fc.oneof(word, fc.constant("*")), { minLength: 0, maxLength: 3 }), fc.constantFrom("a", "*", ">"))
  .map(([parts, last]) => ["agentmesh", ...parts, last].join("."));

/** The same rule written as a regular expression. */
function byRegExp(under: string, name: string): boolean {
  const parts = under.split(".").map((part) => (part === "*" ? "[^.]+" : part === ">" ? ".+" : part));
  return new RegExp(`^${parts.join("\\.")}$`).test(name);
}

describe("subjects", () => {
  test("matching agrees with the same rule as a regular expression", () => {
    fc.assert(fc.property(pattern, subject, (under, name) => matches(under, name) === byRegExp(under, name)));
  });

  test("patterns that some subject falls under overlap, whichever comes first", () => {
    fc.assert(
      fc.property(pattern, pattern, subject, (a, b, name) => {
        if (matches(a, name) && matches(b, name)) assert.ok(overlap(a, b));
        assert.equal(overlap(a, b), overlap(b, a));
      }),
    );
  });

  test("patterns that overlap have a subject in common", () => {
    fc.assert(
      fc.property(pattern, pattern, (a, b) => {
        if (!overlap(a, b)) return;
        const [left, right] = [a.split("."), b.split(".")];
        const length = Math.max(left.length, right.length);
        const wild = (part: string | undefined) => part === undefined || part === "*" || part === ">";
        const common = Array.from({ length }, (_, i) =>
          wild(left[i]) ? (wild(right[i]) ? "x" : right[i]) : left[i],
        ).join(".");
        assert.ok(matches(a, common) && matches(b, common), `${a} and ${b} but not ${common}`);
      }),
    );
  });

  test("wildcards are refused in subjects and misplaced ones in patterns", () => {
    assertSubject("agentmesh.run.v1.ten_01.done");
    assertPattern("agentmesh.*.v1.>");
    for (const bad of ["agentmesh.*", "agentmesh.a.>", "other.a", "agentmesh", ""])
      assert.throws(() => assertSubject(bad), TypeError);
    for (const bad of ["agentmesh.>.a", "*.a", ">", "agentmesh.a*", "agentmesh.a."])
      assert.throws(() => assertPattern(bad), TypeError);
  });
});
