import { readdirSync, readFileSync } from "node:fs";
import { descendants } from "./proc-stat.ts";

/** CPU time of all threads of a process, in microseconds and as exact as the scheduler knows it; 0 when it has ended. */
export function preciseCpuMicros(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) => {
      // The first number is the time on the CPU in nanoseconds: sched-stats.rst.
      return sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ", 1)[0]) / 1_000;
    }, 0);
  } catch {
    return 0;
  }
}

/** CPU time of the processes below one, by {@link kindOf}. */
export function familyCpuByKind(pid: number): Map<string, number> {
  const sums = new Map<string, number>();
  for (const child of descendants(pid)) {
    const kind = kindOf(titleOf(child));
    sums.set(kind, (sums.get(kind) ?? 0) + preciseCpuMicros(child));
  }
  return sums;
}

/** What PostgreSQL calls a process of its own, by its title: "backend", "walwriter", "postmaster", …; else "other". */
export function kindOf(title: string): string {
  const named = /^postgres: (.+)/.exec(title)?.[1];
  if (named === undefined) return /(^|\/)postgres( |$)/.test(title) ? "postmaster" : "other";
  return named.includes("[local]") ? "backend" : named.replace(/ \d.*$/, "").trim();
}

function titleOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "";
  }
}
