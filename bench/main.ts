// npm run bench [-- --quick]: measures the service against the model server itself and a bare relay, writes
// bench/results/<date>.json, the table in README.md and the goals in docs/performance.md.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { goals } from "./goals.ts";
import { PLANS } from "./plan.ts";
import { loadAverage } from "./proc-stat.ts";
import { insertTable, table } from "./report.ts";
import { runBench } from "./run-bench.ts";

const ROOT = join(import.meta.dirname, "..");
const BUSY_LOAD = 1.5;

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    smoke: { type: "boolean", default: false },
    /** Where results go, in place of bench/results; the pages are left alone. */
    out: { type: "string" },
  },
});

if (process.platform !== "linux") throw new Error("the bench reads /proc and needs Linux");
const plan = values.smoke ? PLANS.smoke : values.quick ? PLANS.quick : PLANS.full;
const [load] = loadAverage();
if (load > BUSY_LOAD) console.log(`the machine is busy (load average ${load}): the figures will be noisy`);
const results = await runBench(plan, (line) => console.log(line));
const text = table(results);
const folder = values.out ?? join(ROOT, "bench/results");
await mkdir(folder, { recursive: true });
const file = join(folder, `${results.startedAt.slice(0, 16).replace(":", "")}-${results.form}.json`);
await writeFile(file, `${JSON.stringify(results, undefined, 1)}\n`);
const reached = goals(results);
if (values.out === undefined) {
  const rewrite = async (page: string, table: string, name: string) => {
    const path = join(ROOT, page);
    await writeFile(path, insertTable(await readFile(path, "utf8"), table, name));
  };
  await rewrite("README.md", text, "bench");
  const source = `Of [\`${basename(file)}\`](../bench/results/${basename(file)}):`;
  await rewrite("docs/performance.md", `${source}\n\n${reached}`, "goals");
}
console.log(`\n${text}\n\n${reached}\nraw results: ${file} (${results.seconds} s)`);
