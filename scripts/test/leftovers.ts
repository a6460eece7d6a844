// What a test left behind is found by the run's own temporary folder: children inherit it as TMPDIR.
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** A temporary folder for one run. Servers that drop root's rights must reach what lies in it, hence mode 1777. */
export function makeRunFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "am-"));
  chmodSync(folder, 0o1777);
  return folder;
}

/**
 * Names what is left of a run: files in `folder`, and (on Linux) processes that have it as their TMPDIR and do not end
 * by themselves within `graceMs`. Removes both.
 */
export async function sweep(folder: string, graceMs = 2_000): Promise<string[]> {
  const deadline = performance.now() + graceMs;
  let processes = processesOf(folder);
  while (processes.length > 0 && performance.now() < deadline) {
    await sleep(100);
    processes = processesOf(folder);
  }
  const files = readdirSync(folder);
  for (const { pid } of processes) end(pid);
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  return [...processes.map(({ pid, command }) => `process ${pid}: ${command}`), ...files.map((file) => `file ${file}`)];
}

function processesOf(folder: string): { pid: number; command: string }[] {
  if (process.platform !== "linux") return [];
  const pids = readdirSync("/proc").map(Number).filter(Number.isInteger);
  return pids.flatMap((pid) => {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
      if (pid === process.pid || !environment.includes(`TMPDIR=${folder}`)) return [];
      return [{ pid, command: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim() }];
    } catch {
      return []; // ended meanwhile, or not ours to look at
    }
  });
}

function end(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // ended meanwhile
  }
}
