import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { check, type Rule } from "./dependency-rule/check.ts";

// A small tree in which every line that breaks a rule says so: `// violates: <rule>`.
const root = join(import.meta.dirname, "fixtures/dependency-rule");
const rooms = ["gen", "platform", "services", "gateway", "mesh", "tests"];
const subpaths = Object.fromEntries(rooms.map((room) => [`#${room}/*`, `./${room}/*`]));

const allRules: Record<Rule, true> = {
  room: true,
  "test code": true,
  door: true,
  pure: true,
  connection: true,
  cycle: true,
  barrel: true,
  unfinished: true,
  unresolved: true,
  unparsed: true,
  unchecked: true,
};

function expected(): string[] {
  return globSync("**/*.ts", { cwd: root }).flatMap((file) => {
    const lines = readFileSync(join(root, file), "utf8").split("\n");
    return lines.flatMap((line, i) => {
      const rule = /\/\/ violates: (.+)$/.exec(line)?.[1];
      return rule === undefined ? [] : [`${file}:${i + 1} ${rule}`];
    });
  });
}

describe("the dependency rule", () => {
  const { modules, imports, violations } = check(root, { subpaths });

  test("reports exactly the lines that break it", () => {
    assert.deepEqual(violations.map(({ file, line, rule }) => `${file}:${line} ${rule}`).sort(), expected().sort());
  });

  test("counts the modules and imports that it checked", () => {
    assert.equal(modules, globSync("**/*.ts", { cwd: root }).length);
    assert.ok(imports > 100, String(imports));
  });

  test("fails when a room holds no module that it could check", () => {
    const result = check(root, { subpaths: { ...subpaths, "#console/*": "./console/*" } });
    assert.deepEqual(
      result.violations.filter(({ rule }) => rule === "unchecked").map(({ file }) => file),
      ["console"],
    );
    const nothing = check(join(root, "attic"), { subpaths });
    assert.equal(nothing.violations.filter(({ rule }) => rule === "unchecked").length, rooms.length);
  });

  test("has a line in the fixtures for every rule", () => {
    const seen = new Set(expected().map((line) => line.replace(/^\S+ /, "")));
    for (const rule of Object.keys(allRules)) assert.ok(rule === "unchecked" || seen.has(rule), rule);
  });

  test("looks past what it is told to skip", () => {
    const skipped = check(root, { subpaths, skip: ["attic"] });
    assert.equal(skipped.modules, modules - 1);
    assert.ok(!skipped.violations.some(({ file }) => file.startsWith("attic/")));
  });
});
