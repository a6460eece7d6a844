import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { skippedTests } from "./skipped-tests.ts";

describe("skipped tests", () => {
  test("are found in the report of node's own runner, suites and reasons included", () => {
    const folder = mkdtempSync(join(tmpdir(), "skipped-"));
    try {
      const file = join(folder, "some.test.mjs");
      writeFileSync(
        file,
        `import { describe, test } from "node:test";
         test("runs", () => {});
         test("fails", () => { throw new Error("ok 1 - x"); });
         describe("suite", () => { test("needs # redis", { skip: "redis is not installed" }, () => {}); });
         describe.skip("whole suite", () => { test("inside", () => {}); });`,
      );
      const { NODE_TEST_CONTEXT: _, ...env } = process.env;
      const run = spawnSync(process.execPath, ["--test", "--test-reporter=tap", file], { env, encoding: "utf8" });
      assert.deepEqual(skippedTests(run.stdout), [
        { name: "needs \\# redis", reason: "redis is not installed" },
        { name: "whole suite", reason: "no reason given" },
      ]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
