import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { testFiles } from "./test-files.ts";

const root = join(import.meta.dirname, "../..");

describe("the files of a test run", () => {
  test("are the tests of the tree, without those of packages and fixtures", () => {
    const files = testFiles(root, []);
    assert.ok(files.includes("scripts/test/test-files.test.ts"));
    assert.ok(files.every((file) => file.endsWith(".test.ts")));
    assert.deepEqual(
      files.filter((file) => file.includes("node_modules") || file.includes("fixtures/")),
      [],
    );
  });

  test("are those whose path contains one of the filters, once each", () => {
    assert.deepEqual(testFiles(root, ["test/test-files", "scripts/test/leftovers", "test-files"]), [
      "scripts/test/leftovers.test.ts",
      "scripts/test/test-files.test.ts",
    ]);
    assert.deepEqual(testFiles(root, ["no/such/path"]), []);
  });
});
