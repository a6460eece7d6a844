import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

/** Runs one test file with a limit of half a second, and returns how the runner ended and what it printed. */
function run(body: string): { status: number | null; output: string } {
  const folder = mkdtempSync(join(tmpdir(), "limit-"));
  try {
    const file = join(folder, "some.test.mjs");
    writeFileSync(file, `import { test } from "node:test";\nimport net from "node:net";\n${body}`);
    const { NODE_TEST_CONTEXT: _, ...rest } = process.env;
    const env = { ...rest, AGENTMESH_TEST_FILE_LIMIT_MS: "500" };
    const preload = `--import=${join(import.meta.dirname, "file-limit.ts")}`;
    const ended = spawnSync(process.execPath, ["--test", preload, file], { env, encoding: "utf8", timeout: 30_000 });
    return { status: ended.status, output: ended.stdout + ended.stderr };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("the time limit of a test file", () => {
  test("ends a file that leaves a server open, and names what is open", () => {
    const { status, output } = run(`test("leaks", () => { net.createServer().listen(0); });`);
    assert.equal(status, 1);
    assert.match(output, /ran longer than 500 ms; still open: .*TCPServerWrap/);
  });

  test("ends a file that never yields", () => {
    assert.equal(run(`test("spins", () => { for (;;); });`).status, 1);
  });

  test("does not keep a file that is done", () => {
    const { status, output } = run(`test("passes", () => {});`);
    assert.equal(status, 0);
    assert.doesNotMatch(output, /ran longer/);
  });
});
