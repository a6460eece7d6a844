// Checks the dependency rule (docs: architecture) over the whole repository: node scripts/dependency-rule.ts
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { check } from "./dependency-rule/check.ts";

const root = join(import.meta.dirname, "..");
const { imports: subpaths } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { modules, imports, violations } = check(root, { subpaths, skip: ["scripts/fixtures"] });

for (const { file, line, rule, message } of violations) console.error(`${file}:${line}  ${rule}: ${message}`);
console.log(`dependency rule: ${modules} modules, ${imports} imports checked, ${violations.length} violations`);
if (violations.length > 0) process.exitCode = 1;
