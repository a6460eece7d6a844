import { globSync } from "node:fs";

const never = new Set(["node_modules", "scripts/fixtures"]);

/** Every test file below `root` whose path contains one of `filters` (all, without one), sorted. */
export function testFiles(root: string, filters: readonly string[]): string[] {
  const exclude = (path: string) => never.has(path) || /(^|\/)(\.[^/]+|node_modules)$/.test(path);
  return globSync("**/*.test.ts", { cwd: root, exclude })
    .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)))
    .sort();
}
