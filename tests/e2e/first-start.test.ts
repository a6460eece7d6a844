import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RestClient } from "./rest-client.ts";
import { type SpawnedProcess, spawnMesh } from "./spawned-process.ts";

/** A start as a newcomer makes it: no key, no settings, an empty folder that nobody else may enter. */
describe("the first start", () => {
  let folder: string;
  let dataDir: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "home-"));
    await chmod(folder, 0o700);
    dataDir = join(folder, "project", ".agentmesh");
    await mkdir(join(folder, "project"), { mode: 0o700 });
  });
  const started: SpawnedProcess[] = [];
  after(async () => {
    await Promise.all(started.map((process) => process.kill()));
    await rm(folder, { recursive: true, force: true });
  });

  async function start(settings: Record<string, string> = {}): Promise<SpawnedProcess> {
    const process = await spawnMesh("all", { AGENTMESH_DATA_DIR: dataDir, AGENTMESH_GREET: "auto", ...settings });
    started.push(process);
    return process;
  }

  test("shows address, key, a line to paste and a streamed answer that used a tool; the next keeps what there was", async () => {
    const first = await start();
    await printed(first, /\[result .*42.*\]/s);
    const key = (await readFile(join(dataDir, "admin-key"), "utf8")).trim();
    assert.equal((await stat(join(dataDir, "admin-key"))).mode & 0o777, 0o600);
    const output = first.output();
    assert.match(output, new RegExp(`agentmesh listens on ${first.baseUrl}`));
    assert.equal(output.split(key).length, 2, "the key is printed once");
    assert.match(output, /curl -N http/);
    assert.match(output, /\[tool calculator/);
    const client = new RestClient(first.baseUrl, key);
    const before = await idleSessions(client);
    assert.equal(before.length, 1);
    assert.equal(await first.stop(), 0);

    const second = await start();
    assert.ok(!second.output().includes(key), "the key is not printed again");
    const { body: afterwards } = await new RestClient(second.baseUrl, key).call("GET", "/api/v1/sessions");
    assert.deepEqual(afterwards.sessions, before);
    await sleep(300);
    assert.doesNotMatch(second.output(), /\[tool /, "no greeting of its own accord once there is a session");

    const postgres = await childrenOf(second.pid);
    assert.ok(postgres.length > 0);
    await second.kill();
    await gone(postgres);

    const third = await start();
    const again = new RestClient(third.baseUrl, key);
    assert.deepEqual((await again.call("GET", "/api/v1/sessions")).body.sessions, before);
    const { body: health } = await again.call("GET", "/health");
    assert.equal(health.status, "healthy");
    assert.equal(await third.stop(), 0);
  });

  test("a second mesh on the same data directory is refused with a clear message", async () => {
    const first = await start();
    await assert.rejects(start(), /in use|already|another/i);
    await first.stop();
  });

  test("an admin key of the wrong form is a boot error that prints one to use", async () => {
    const dataDir2 = join(folder, "other");
    await assert.rejects(
      start({ AGENTMESH_DATA_DIR: dataDir2, AGENTMESH_ADMIN_KEY: "secret" }),
      /am_live_[a-z0-9]{26}_/,
    );
  });
});

/** The sessions once the greeting's run has ended. */
async function idleSessions(client: RestClient): Promise<{ active_run_id: string }[]> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const { sessions } = (await client.call("GET", "/api/v1/sessions")).body as {
      sessions: { active_run_id: string }[];
    };
    if (sessions.every((session) => session.active_run_id === "")) return sessions;
    if (performance.now() > deadline) assert.fail("the greeting does not end");
    await sleep(50);
  }
}

async function printed(process: SpawnedProcess, expected: RegExp): Promise<void> {
  const deadline = performance.now() + 15_000;
  while (!expected.test(process.output())) {
    if (performance.now() > deadline) assert.fail(`not printed: ${expected}\n${process.output()}`);
    await sleep(50);
  }
}

/** All descendants of a process, by /proc. */
async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  const direct = text.split(" ").filter(Boolean).map(Number);
  const deeper = await Promise.all(direct.map(childrenOf));
  return [...direct, ...deeper.flat()];
}

async function gone(pids: readonly number[]): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (const pid of pids) {
    while (await alive(pid)) {
      if (performance.now() > deadline) assert.fail(`process ${pid} outlived its parent`);
      await sleep(50);
    }
  }
}

async function alive(pid: number): Promise<boolean> {
  try {
    // A zombie that waits for its reaper has ended.
    return !/^State:\s+Z/m.test(await readFile(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
