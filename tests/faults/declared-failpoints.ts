import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");

/** The names of all failpoints that stand in the sources of a service, sorted. Throws for one that stands twice. */
export function declaredFailpoints(service: "agent" | "tool"): string[] {
  const names = globSync(`services/${service}/**/*.ts`, { cwd: ROOT })
    .filter((file) => !file.endsWith(".test.ts"))
    .flatMap((file) => readFileSync(join(ROOT, file), "utf8").match(/(?<=\bfailpoint\(")[^"]+(?="\))/g) ?? []);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new Error(`failpoint ${twice} stands twice`);
  return names.toSorted();
}
