import { readdirSync, readFileSync } from "node:fs";

/** Clock ticks per second in /proc: USER_HZ, which is 100 on every architecture that Node runs on (proc_pid_stat(5)). */
const TICKS_PER_SECOND = 100;

interface Stat {
  readonly ppid: number;
  /** User and system time of the process, in ticks. */
  readonly own: number;
  /** The same of its children that have ended and were waited for. */
  readonly ended: number;
}

/** CPU time of a process, all its threads, in microseconds. */
export function cpuMicros(pid: number): number {
  return toMicros(statOf(pid)?.own ?? 0);
}

/** CPU time of every process below this one, with those that have ended, in microseconds. */
export function descendantsCpuMicros(pid: number): number {
  return toMicros(
    descendants(pid).reduce((sum, child) => {
      const stat = statOf(child);
      return sum + (stat === undefined ? 0 : stat.own + stat.ended);
    }, 0),
  );
}

/** Every process below this one. */
export function descendants(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const ppid = statOf(Number(name))?.ppid;
    if (ppid !== undefined) children.set(ppid, [...(children.get(ppid) ?? []), Number(name)]);
  }
  const below = (parent: number): number[] => (children.get(parent) ?? []).flatMap((child) => [child, ...below(child)]);
  return below(pid);
}

/** Resident memory of a process, in KiB. */
export function residentKib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s*(\d+) kB/m.exec(status)?.[1] ?? 0);
}

/** CPU time that the whole machine has been busy for, in microseconds. */
export function machineCpuMicros(): number {
  // user, nice, system, (idle, iowait,) irq, softirq: proc_stat(5).
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = (
    readFileSync("/proc/stat", "utf8").split("\n", 1)[0] ?? ""
  )
    .split(/\s+/)
    .map(Number);
  return toMicros(user + nice + system + irq + softirq);
}

/** CPU time of this process and all that it has started, in microseconds. */
export function familyCpuMicros(): number {
  const own = statOf(process.pid);
  return toMicros((own?.own ?? 0) + (own?.ended ?? 0)) + descendantsCpuMicros(process.pid);
}

/** One- and five-minute load averages. */
export function loadAverage(): [number, number] {
  const [one, five] = readFileSync("/proc/loadavg", "utf8").split(" ").map(Number);
  return [one ?? 0, five ?? 0];
}

function statOf(pid: number): Stat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The name is in brackets and may hold any character; utime to cstime are the 14th to 17th field.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const ticks = (field: number) => Number(fields[field - 3] ?? 0);
  return { ppid: Number(fields[1]), own: ticks(14) + ticks(15), ended: ticks(16) + ticks(17) };
}

function toMicros(ticks: number): number {
  return (ticks / TICKS_PER_SECOND) * 1_000_000;
}
