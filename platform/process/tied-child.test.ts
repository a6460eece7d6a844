import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { spawnTied } from "./tied-child.ts";

const moduleUrl = new URL("./tied-child.ts", import.meta.url).href;
const nobody = 65534;
const onLinuxAsRoot = {
  skip: process.platform !== "linux" || process.getuid?.() !== 0 ? "needs Linux and root" : false,
};
const onLinux = { skip: process.platform !== "linux" ? "needs Linux" : false };

describe("a tied child", () => {
  test("is the program itself, and its lines and exit code are reported", async () => {
    const lines: string[] = [];
    const child = spawnTied("sh", ["-c", "echo $$; echo oops >&2; exit 3"], {
      onLine: (line, from) => lines.push(`${from} ${line}`),
    });
    assert.deepEqual(await child.exited, { code: 3, signal: null });
    assert.deepEqual(lines.sort(), ["stderr oops", `stdout ${child.pid}`]);
    assert.deepEqual(child.exit, { code: 3, signal: null });
  });

  test("gets none of this process's secrets through its environment", async () => {
    const lines: string[] = [];
    process.env.TIED_CHILD_SECRET = "hush";
    try {
      await spawnTied("env", [], { onLine: (line) => lines.push(line) }).exited;
    } finally {
      delete process.env.TIED_CHILD_SECRET;
    }
    assert.ok(lines.some((line) => line.startsWith("PATH=")));
    assert.ok(!lines.join().includes("TIED_CHILD_SECRET"));
  });

  test("stops by the given signal, and stopping it again is harmless", async () => {
    const child = spawnTied("sleep", ["60"]);
    assert.equal((await child.stop("SIGINT", 5_000)).signal, "SIGINT");
    assert.equal((await child.stop()).signal, "SIGINT");
  });

  test("is killed when it does not stop within the grace", async () => {
    const started = Promise.withResolvers<void>();
    const child = spawnTied("sh", ["-c", "trap '' TERM; echo on; while :; do sleep 0.05; done"], {
      onLine: () => started.resolve(),
    });
    await started.promise;
    assert.equal((await child.stop("SIGTERM", 100)).signal, "SIGKILL");
  });

  test("ends with the scope that owns it", async () => {
    let pid = 0;
    {
      await using child = spawnTied("sleep", ["60"]);
      pid = child.pid ?? 0;
      assert.ok(isAlive(pid));
    }
    assert.equal(isAlive(pid), false);
  });

  test("reports a program that cannot be started instead of hanging or throwing", async () => {
    const exit = await spawnTied("/does/not/exist", []).exited;
    assert.ok(exit.error !== undefined || exit.code !== 0);
  });

  test("reports its end although a grandchild keeps its output open", async () => {
    let grandchild = 0;
    const child = spawnTied("sh", ["-c", "sleep 60 & echo $!"], { onLine: (line) => (grandchild = Number(line)) });
    assert.equal((await child.exited).code, 0);
    process.kill(grandchild, "SIGKILL");
  });

  test("leads a session of its own, so that Ctrl-C at the terminal is not for it", onLinux, async () => {
    await using child = spawnTied("sleep", ["60"]);
    await waitFor(async () => (await commandOf(child.pid ?? 0)) === "sleep");
    const [, , , , group, session] = (await readFile(`/proc/${child.pid}/stat`, "utf8")).split(" ");
    assert.deepEqual([group, session].map(Number), [child.pid, child.pid]);
  });

  test("in the background does not keep its parent alive", async () => {
    const source = `import { spawnTied } from ${JSON.stringify(moduleUrl)};
      spawnTied("sleep", ["60"], { background: true, onLine() {} });`;
    const parent = spawn(process.execPath, ["--input-type=module", "-e", source], {
      stdio: "inherit",
      timeout: 20_000,
    });
    assert.deepEqual(await once(parent, "exit"), [0, null]);
  });

  test("dies when its parent is killed with SIGKILL", onLinux, async () => {
    await dieWithParent("");
  });

  test("dies with its parent although it runs as another user and keeps a capability", onLinuxAsRoot, async () => {
    await dieWithParent(`uid: ${nobody}, gid: ${nobody}, keepReadSearch: true,`);
  });

  test(
    "runs as the given user without groups, and enters a directory of mode 0700 only with keepReadSearch",
    onLinuxAsRoot,
    async () => {
      const home = await mkdtemp(join(tmpdir(), "tied-"));
      try {
        await mkdir(join(home, "inner"));
        await writeFile(join(home, "inner", "file"), "found", { mode: 0o755 });
        await chmod(home, 0o700);
        const run = async (keepReadSearch: boolean) => {
          const lines: string[] = [];
          await spawnTied(
            "sh",
            [
              "-c",
              `id -u; id -G; cat ${home}/inner/file; echo; test -x ${home}/inner/file && echo access; touch ${home}/inner/new && echo wrote`,
            ],
            {
              uid: nobody,
              gid: nobody,
              keepReadSearch,
              onLine: (line, from) => from === "stdout" && lines.push(line),
            },
          ).exited;
          return lines;
        };
        assert.deepEqual(await run(true), [String(nobody), String(nobody), "found", "access"]);
        assert.deepEqual(await run(false), [String(nobody), String(nobody), ""]);
      } finally {
        await rm(home, { recursive: true, force: true });
      }
    },
  );
});

async function dieWithParent(options: string): Promise<void> {
  const source = `import { spawnTied } from ${JSON.stringify(moduleUrl)};
    const child = spawnTied("sleep", ["60"], { ${options} });
    console.log(child.pid);`;
  const parent = spawn(process.execPath, ["--input-type=module", "-e", source], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = (await once(createInterface({ input: parent.stdout }), "line")) as [string];
  const pid = Number(line);
  await waitFor(async () => (await commandOf(pid)) === "sleep");
  parent.kill("SIGKILL");
  await once(parent, "exit");
  await waitFor(async () => !isAlive(pid) || (await stateOf(pid)) === "Z");
}

async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await condition()) return;
    await sleep(10);
  }
  assert.fail("did not happen within 5 s");
}

async function commandOf(pid: number): Promise<string> {
  return (await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "")).trim();
}

async function stateOf(pid: number): Promise<string | undefined> {
  return /\) (\w)/.exec(await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ""))?.[1];
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
