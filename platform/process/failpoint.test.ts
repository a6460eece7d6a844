import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, test } from "node:test";
import { armedFailpoints, failpoint, isDue } from "./failpoint.ts";

/** Runs a process that visits `x.y` three times and says each, with these failpoints armed; signals itself after a visit. */
function visited(failpoints: string, more: Record<string, string> = {}, signalAfter = 0) {
  const source = `
    import { failpoint } from ${JSON.stringify(join(import.meta.dirname, "failpoint.ts"))};
    for (let i = 1; i <= 3; i++) {
      try { failpoint("x.y"); process.stdout.write(String(i)); } catch (error) { process.stdout.write(error.name); }
      if (i === ${signalAfter}) {
        const heard = new Promise((resolve) => process.once("SIGUSR2", resolve));
        const alive = setInterval(() => {}, 1_000);
        process.kill(process.pid, "SIGUSR2");
        await heard;
        clearInterval(alive);
      }
    }`;
  const { AGENTMESH_ENV: _, NODE_ENV: __, ...env } = process.env;
  const began = performance.now();
  const { stdout, stderr, signal, status } = spawnSync(process.execPath, ["--input-type=module", "-e", source], {
    encoding: "utf8",
    env: { ...env, AGENTMESH_FAILPOINTS: failpoints, ...more },
  });
  return { stdout, stderr, signal, status, ms: performance.now() - began };
}

describe("a failpoint", () => {
  test("does nothing when none is armed, or another one", () => {
    failpoint("x.y");
    assert.equal(visited("").stdout, "123");
    assert.equal(visited("x.z:kill").stdout, "123");
  });

  test("ends its process with SIGKILL, at the visit that is named", () => {
    const { stdout, signal } = visited("x.y:kill@2");
    assert.deepEqual([stdout, signal], ["1", "SIGKILL"]);
    assert.deepEqual(visited("x.y:kill").stdout, "");
  });

  test("throws, or keeps the thread", () => {
    assert.equal(visited("x.z:kill, x.y:error@3").stdout, "12FailpointError");
    const { stdout, ms } = visited("x.y:delay=400ms@1");
    assert.equal(stdout, "123");
    assert.ok(ms >= 400, String(ms));
  });

  test("waits for SIGUSR2 when it is told to, and counts from there", () => {
    const wait = { AGENTMESH_FAILPOINTS_WAIT: "yes" };
    assert.equal(visited("x.y:kill@2", wait).stdout, "123");
    const { stdout, signal } = visited("x.y:kill@2", wait, 1);
    assert.deepEqual([stdout, signal], ["12", "SIGKILL"]);
  });

  test("is refused in production unless that is allowed", () => {
    for (const name of ["AGENTMESH_ENV", "NODE_ENV"]) {
      const refused = visited("x.y:kill", { [name]: "production" });
      assert.equal(refused.status, 1);
      assert.match(refused.stderr, /AGENTMESH_FAILPOINTS is set in production/);
      const allowed = visited("x.y:kill", { [name]: "production", AGENTMESH_FAILPOINTS_IN_PRODUCTION: "yes" });
      assert.equal(allowed.signal, "SIGKILL");
    }
  });

  test("is read from text that says name, action and visit, and nothing else", () => {
    const armed = armedFailpoints({ AGENTMESH_FAILPOINTS: "a.b:stop,c-d.e:delay=5ms@7" });
    assert.deepEqual(
      [...(armed ?? [])],
      [
        ["a.b", { action: { kind: "stop" }, visit: undefined }],
        ["c-d.e", { action: { kind: "delay", ms: 5 }, visit: 7 }],
      ],
    );
    for (const wrong of [
      "a.b",
      "a.b:",
      "a.b:explode",
      "a:kill",
      "a.b:kill@0",
      "a.b:delay=5",
      "a.b:kill,",
      "A.b:kill",
    ]) {
      assert.throws(() => armedFailpoints({ AGENTMESH_FAILPOINTS: wrong }), /AGENTMESH_FAILPOINTS/, wrong);
    }
  });

  test("is due at every visit when none is named", () => {
    assert.deepEqual(
      [1, 2, 3].map((visits) => isDue({ action: { kind: "kill" }, visit: undefined }, visits)),
      [true, true, true],
    );
    assert.deepEqual(
      [1, 2, 3].map((visits) => isDue({ action: { kind: "kill" }, visit: 2 }, visits)),
      [false, true, false],
    );
  });
});
