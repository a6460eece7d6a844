import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { makeRunFolder, sweep } from "./leftovers.ts";

describe("what a test run leaves behind", () => {
  test("is nothing when the tests cleaned up", async () => {
    const folder = makeRunFolder();
    assert.deepEqual(await sweep(folder), []);
    assert.equal(existsSync(folder), false);
  });

  test("is named and removed: files, and processes that inherited the folder", { skip: notLinux() }, async () => {
    const folder = makeRunFolder();
    writeFileSync(join(folder, "forgotten"), "");
    const child = spawn("sleep", ["60"], { env: { ...process.env, TMPDIR: folder }, stdio: "ignore" });
    await once(child, "spawn");
    const exited = once(child, "exit");
    assert.deepEqual(await sweep(folder, 0), [`process ${child.pid}: sleep 60`, "file forgotten"]);
    assert.deepEqual(await exited, [null, "SIGKILL"]);
    assert.equal(existsSync(folder), false);
  });

  test("does not count a process that ends within the grace", { skip: notLinux() }, async () => {
    const folder = makeRunFolder();
    const child = spawn("sleep", ["0.2"], { env: { ...process.env, TMPDIR: folder }, stdio: "ignore" });
    await once(child, "spawn");
    assert.deepEqual(await sweep(folder, 10_000), []);
  });
});

function notLinux(): string | false {
  return process.platform === "linux" ? false : "reads /proc";
}
