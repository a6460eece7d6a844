// npm test [-- filter… --flag=value…]: runs the tests with private servers of their own.
//   filter   a part of a test file's path, such as platform/bus; without one every *.test.ts of the tree runs
//   --flag   goes to `node --test`, such as --test-name-pattern=resume
// Fails when a test fails or leaves a process or a temporary file behind, and with CI=true when one is skipped.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { compileTools } from "./test/compile-tools.ts";
import { makeRunFolder, sweep } from "./test/leftovers.ts";
import { startServers } from "./test/servers.ts";
import { skippedTests } from "./test/skipped-tests.ts";
import { testFiles } from "./test/test-files.ts";

/** A test, and a test file, that takes longer is ended and counts as failed. */
const testLimitMs = 60_000;
const fileLimitMs = 420_000;

/** Meshes that are broken again and again: each file may take several minutes, where a test says by itself when it is too long. */
const faultFileLimitMs = 900_000;

/** Tests that measure one thing beside another: one file at a time, when the rest is done. */
const ALONE = [
  { folder: "tests/abuse/", limitMs: fileLimitMs },
  { folder: "tests/faults/", limitMs: faultFileLimitMs },
];

/** Bars of time and memory that hold on a quiet machine only, and minutes more: only when a filter asks for something. */
const WHEN_ASKED = ["idle-streams", "lost-runs", "quiet-tenant", "watchers"].map(
  (name) => `tests/faults/${name}.test.ts`,
);

const root = join(import.meta.dirname, "..");
const flags = process.argv.slice(2).filter((argument) => argument.startsWith("-"));
const filters = process.argv.slice(2).filter((argument) => !argument.startsWith("-"));
process.exitCode = await main();

async function main(): Promise<number> {
  const began = performance.now();
  const files = testFiles(root, filters).filter((file) => filters.length > 0 || !WHEN_ASKED.includes(file));
  if (files.length === 0) {
    console.error(`no test file's path contains ${filters.join(" or ")}`);
    return 1;
  }
  compileTools(files);
  await using servers = await startServers(files);
  const startedMs = performance.now() - began;
  const folder = makeRunFolder();
  const environment = {
    ...cleanEnvironment(),
    ...servers.environment,
    TMPDIR: folder,
    // Hundreds of processes import the same files, whose types are stripped and which are compiled once.
    NODE_COMPILE_CACHE: join(root, ".compile-cache"),
  };
  const together = files.filter((file) => !ALONE.some(({ folder }) => file.startsWith(folder)));
  // They wait more than they compute.
  const reports = [
    await runNode(together, { concurrency: availableParallelism() + 2, limitMs: fileLimitMs }, environment),
  ];
  for (const { folder, limitMs } of ALONE) {
    const some = files.filter((file) => file.startsWith(folder));
    reports.push(await runNode(some, { concurrency: 1, limitMs }, environment));
  }
  const code = reports.find((one) => one.code !== 0)?.code ?? 0;
  const tap = reports.map((one) => one.tap).join("");
  const leftovers = await sweep(folder);
  const skipped = skippedTests(tap);

  for (const { name, reason } of skipped) console.log(`skipped: ${name}: ${reason}`);
  if (servers.aptLine !== undefined) console.log(`to run what was skipped for want of a server: ${servers.aptLine}`);
  for (const one of leftovers) console.error(`left behind by a test: ${one}`);
  const skipFails = process.env["CI"] === "true" && skipped.length > 0;
  if (skipFails) console.error("CI runs every test: a skipped one counts as failed");
  const seconds = (ms: number) => (ms / 1000).toFixed(1);
  const failed = code !== 0 || skipFails || leftovers.length > 0;
  console.log(
    `npm test: ${failed ? "FAILED" : "ok"}, ${files.length} files, ${skipped.length} skipped, ` +
      `${seconds(performance.now() - began)} s (servers ${seconds(startedMs)} s)`,
  );
  return failed ? 1 : 0;
}

/** Runs `node --test`, its report on our output; resolves with its exit code and its TAP report. */
async function runNode(
  files: readonly string[],
  { concurrency, limitMs }: { concurrency: number; limitMs: number },
  environment: NodeJS.ProcessEnv,
): Promise<{ code: number; tap: string }> {
  if (files.length === 0) return { code: 0, tap: "" };
  const reports = mkdtempSync(join(tmpdir(), "agentmesh-report-"));
  const tapFile = join(reports, "tap");
  const reporters = ["spec", "stdout", "tap", tapFile];
  const env = { ...environment, AGENTMESH_TEST_FILE_LIMIT_MS: String(limitMs) };
  const child = spawn(
    process.execPath,
    [
      "--test",
      `--import=${join(import.meta.dirname, "test/file-limit.ts")}`,
      `--test-timeout=${testLimitMs}`,
      `--test-concurrency=${concurrency}`,
      ...reporters.map((value, i) => `--test-reporter${i % 2 === 1 ? "-destination" : ""}=${value}`),
      ...flags,
      ...files,
    ],
    { cwd: root, env, stdio: ["ignore", "inherit", "inherit"] },
  );
  // Ctrl-C reaches the child too; this process stays to stop the servers.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
  const [code] = (await once(child, "exit")) as [number | null];
  const tap = readFileSync(tapFile, "utf8");
  rmSync(reports, { recursive: true });
  return { code: code ?? 1, tap };
}

/** No server, key or setting of the machine reaches the tests. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const foreign = /^(AGENTMESH_.*|MESH_.*|DATABASE_.*|REDIS_URL|NATS_URL|ANTHROPIC_.*|OPENAI_.*|PORT|PG[A-Z]+)$/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)));
}
