import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { modelAllowed } from "./model-pattern.ts";

describe("model patterns", () => {
  test("a * stands for any characters, none included, and everything else for itself", () => {
    const table: [string, string, boolean][] = [
      ["*", "anything", true],
      ["*", "", true],
      ["claude-haiku-*", "claude-haiku-5-5", true],
      ["claude-haiku-*", "claude-haiku-", true],
      ["claude-haiku-*", "claude-haiku", false],
      ["claude-haiku-*", "my-claude-haiku-5", false],
      ["claude-*-5", "claude-opus-5", true],
      ["claude-*-5", "claude-opus-5-5", true],
      ["claude-*-5", "claude-5", false],
      ["claude-opus-5", "claude-opus-5", true],
      ["claude-opus-5", "claude-opus-5-5", false],
      ["claude.opus", "claude-opus", false],
      ["", "", true],
      ["", "x", false],
      ["a*a", "a", false],
      ["a**b", "ab", true],
    ];
    for (const [pattern, model, allowed] of table)
      assert.equal(modelAllowed([pattern], model), allowed, `${pattern} ${model}`);
    assert.equal(modelAllowed([], "x"), false);
    assert.equal(modelAllowed(["a", "b*"], "bc"), true);
  });

  test("agrees with a regular expression", () => {
    const text = (extra: string) => fc.string({ unit: fc.constantFrom("a", "b", "-", ...extra), maxLength: 12 });
    fc.assert(
      fc.property(text("*"), text(""), (pattern, model) => {
        const expression = new RegExp(`^${pattern.replaceAll("*", ".*")}$`);
        assert.equal(modelAllowed([pattern], model), expression.test(model));
      }),
    );
  });

  test("stays quick for patterns that make a backtracking matcher slow", { timeout: 5_000 }, () => {
    const pattern = `${"a*".repeat(64)}b`;
    for (let i = 0; i < 1_000; i++) assert.equal(modelAllowed([pattern], "a".repeat(128)), false);
  });
});
