import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { createLog } from "../telemetry/log.ts";
import { ConfigError } from "./config-error.ts";
import type { ConfigSource } from "./source.ts";
import { watchConfig } from "./watch.ts";

const read = (source: ConfigSource) => ({
  level: source.choice("log.level", ["info", "debug"], { default: "info" }),
  size: source.int("pool.size", { default: 1 }),
});

function setup(text = "log: { level: info }") {
  const dir = mkdtempSync(join(tmpdir(), "watch-"));
  const put = (content: string) => {
    writeFileSync(join(dir, "next"), content);
    renameSync(join(dir, "next"), join(dir, "default.yaml"));
  };
  put(text);
  const lines: Record<string, unknown>[] = [];
  const log = createLog({
    level: "debug",
    service: "s",
    destination: { write: (line) => lines.push(JSON.parse(line)) },
  });
  const open = (settleMs = 5) => watchConfig(read, { dir, env: {}, log, settleMs, hangup: true });
  const events = () => lines.map(({ event }) => event);
  return { put, open, lines, events, [Symbol.dispose]: () => rmSync(dir, { recursive: true }) };
}

describe("watchConfig", () => {
  test("follows its files, also replaced ones, and tells old and new", async () => {
    using files = setup();
    using config = files.open();
    const changed = new Promise((resolve) => config.subscribe((now, before) => resolve([now, before])));
    files.put("log: { level: debug }\npool: { size: 2 }");
    assert.deepEqual(await changed, [
      { level: "debug", size: 2 },
      { level: "info", size: 1 },
    ]);
    assert.equal(config.current.level, "debug");
  });

  test("keeps the old values when the new file is invalid, logs why, and takes the next good one", () => {
    using files = setup();
    using config = files.open();
    const told: unknown[] = [];
    config.subscribe((now) => told.push(now));
    files.put("log: { level: loud }\nlogg: 1");
    assert.equal(config.reload(), false);
    files.put("log: [");
    assert.equal(config.reload(), false);
    assert.deepEqual([config.current, told], [{ level: "info", size: 1 }, []]);
    assert.deepEqual(files.events(), ["config.reload.refused", "config.reload.refused"]);
    assert.match(JSON.stringify(files.lines[0]), /log\.level: expected one of info, debug/);
    files.put("log: { level: debug }");
    assert.equal(config.reload(), true);
    assert.deepEqual(told, [{ level: "debug", size: 1 }]);
  });

  test("notices that a value changed back", () => {
    using files = setup();
    using config = files.open();
    files.put("log: { level: debug }");
    config.reload();
    files.put("log: { level: info }");
    config.reload();
    assert.equal(config.current.level, "info");
  });

  test("tells nobody when no value changed", () => {
    using files = setup();
    using config = files.open();
    config.subscribe(() => assert.fail("nothing changed"));
    files.put("# moved\nlog:\n  level: info\n");
    assert.equal(config.reload(), true);
    assert.deepEqual(files.events(), []);
  });

  test("survives a subscriber that throws, and forgets one that has left", () => {
    using files = setup();
    using config = files.open();
    const told: number[] = [];
    config.subscribe(() => {
      throw new Error("cannot");
    });
    const leave = config.subscribe(({ size }) => told.push(size));
    files.put("pool: { size: 2 }");
    config.reload();
    leave();
    files.put("pool: { size: 3 }");
    config.reload();
    assert.deepEqual(told, [2]);
    assert.equal(files.events().filter((event) => event === "config.subscriber.failed").length, 2);
  });

  test("reads again on SIGHUP, and leaves no listener behind", async () => {
    using files = setup();
    const before = process.listenerCount("SIGHUP");
    const config = files.open(600_000);
    files.put("pool: { size: 2 }");
    const signalled = once(process, "SIGHUP");
    process.kill(process.pid, "SIGHUP");
    await signalled;
    assert.equal(config.current.size, 2);
    config.close();
    assert.equal(process.listenerCount("SIGHUP"), before);
  });

  test("refuses to start with an invalid configuration", () => {
    using files = setup("log: { level: loud }");
    assert.throws(() => files.open(), ConfigError);
  });
});
