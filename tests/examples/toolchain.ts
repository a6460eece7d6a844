import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const ROOT = join(import.meta.dirname, "../..");

/** An example may have to be compiled on a machine that is busy with other tests. */
const TEST_LIMIT_MS = 170_000;

/** What an example needs beyond what `npm install` brings: why it cannot run here, or undefined when it can. */
export type Toolchain = () => string | undefined;

export const bashAndCurl: Toolchain = () =>
  runs("bash") && runs("curl") ? undefined : "bash or curl is not installed";

/** Debian's Chromium; the test runner installs it where it may. */
export const chromium: Toolchain = () => (runs("chromium") ? undefined : "chromium is not installed");

/** Go as new as the example's go.mod asks. */
export const go: Toolchain = () => {
  const { stdout } = spawnSync("go", ["version"], { encoding: "utf8" });
  const found = versionIn(/go(\d+)\.(\d+)/, stdout ?? "");
  const wanted = versionIn(/^go (\d+)\.(\d+)/m, readFileSync(join(ROOT, "examples/go/go.mod"), "utf8"));
  if (found === undefined || wanted === undefined) return "go is not installed";
  const newEnough = found[0] > wanted[0] || (found[0] === wanted[0] && found[1] >= wanted[1]);
  return newEnough ? undefined : `go is older than ${wanted.join(".")}`;
};

export const grpcurl: Toolchain = () => (runs("grpcurl", "-version") ? undefined : go());

export const python: Toolchain = () =>
  runs("python3", "-c", "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))")
    ? undefined
    : "python3 >= 3.10 with venv is not installed";

/**
 * Registers a test where its toolchain is, and prints that it was not run elsewhere: these programs are no part of what
 * the project asks of a machine, so their absence is no skipped test.
 */
export function exampleTest(title: string, needs: Toolchain | undefined, body: () => Promise<void>): void {
  const why = needs?.();
  if (why === undefined) test(title, { timeout: TEST_LIMIT_MS }, body);
  else process.stdout.write(`not run: ${title}: ${why}\n`);
}

function runs(program: string, ...args: string[]): boolean {
  return spawnSync(program, args.length > 0 ? args : ["--version"], { stdio: "ignore" }).status === 0;
}

function versionIn(pattern: RegExp, text: string): [number, number] | undefined {
  const [, major, minor] = pattern.exec(text) ?? [];
  return major === undefined ? undefined : [Number(major), Number(minor)];
}
