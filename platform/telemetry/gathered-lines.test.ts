import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { GatheredLines } from "./gathered-lines.ts";

function gathered(options = { forMs: 60_000, upTo: 100 }) {
  const writes: string[] = [];
  return { writes, lines: new GatheredLines({ write: (text) => writes.push(text) }, options) };
}

describe("GatheredLines", () => {
  test("lines of a moment are one write, in order; a flush and a full buffer do not wait", () => {
    const { writes, lines } = gathered({ forMs: 60_000, upTo: 6 });
    lines.write("a\n");
    lines.write("b\n");
    assert.deepEqual(writes, []);
    lines.flush();
    lines.flush();
    assert.deepEqual(writes, ["a\nb\n"]);
    lines.write("long line\n");
    assert.deepEqual(writes, ["a\nb\n", "long line\n"]);
  });

  test("nothing waits longer than it may", async () => {
    const { writes, lines } = gathered({ forMs: 5, upTo: 100 });
    lines.write("a\n");
    const deadline = performance.now() + 20_000;
    while (writes.length === 0 && performance.now() < deadline) await sleep(5);
    assert.deepEqual(writes, ["a\n"]);
  });

  test("a process that exits, or is ended by an uncaught error, has written every line of its log", () => {
    const log = new URL("./log.ts", import.meta.url).href;
    const run = (end: string) =>
      spawnSync(process.execPath, [
        "--input-type=module",
        "--eval",
        `import { createLog } from ${JSON.stringify(log)};
         const log = createLog({ level: "info", service: "s" });
         for (let i = 0; i < 100; i++) log.info("line " + i);
         ${end}`,
      ]).stdout.toString();
    for (const end of ["process.exit(3)", "throw new Error('x')", ""]) {
      const written = run(end).trim().split("\n");
      assert.equal(written.length, 100, end);
      assert.equal(JSON.parse(written[99] as string).msg, "line 99");
    }
  });

  test("a warning is written at once, with the lines before it", () => {
    const log = new URL("./log.ts", import.meta.url).href;
    const { stdout, signal } = spawnSync(process.execPath, [
      "--input-type=module",
      "--eval",
      `import { createLog } from ${JSON.stringify(log)};
       const log = createLog({ level: "info", service: "s" });
       log.info("before"); log.warn("now"); log.info("lost"); process.kill(process.pid, "SIGKILL");`,
    ]);
    assert.equal(signal, "SIGKILL");
    const written = stdout.toString().trim().split("\n");
    assert.deepEqual(
      written.map((line) => JSON.parse(line).msg),
      ["before", "now"],
    );
  });
});
