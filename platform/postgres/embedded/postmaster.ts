import { execFile } from "node:child_process";
import { readFile, readlink, realpath } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { EmbeddedPostgresError } from "./binaries.ts";

/**
 * The setting by which a server carries the process that started it: `<pid>:<when that started>`. PostgreSQL keeps its
 * command line in postmaster.opts, so whoever finds the server can tell whether its mesh is alive.
 */
export const parentSetting = "agentmesh.parent";

/** The value of {@link parentSetting} for this process. */
export async function thisParent(): Promise<string> {
  return `${process.pid}:${await startOf(process.pid)}`;
}

/**
 * Makes sure that no server runs on a data directory. One whose mesh is alive is an error; one whose mesh is dead is
 * waited for (it is shutting down) or shut down. Returns the pid that the pid file names if it names one: it is no
 * server's any more, but may be a zombie's or some other program's now.
 */
export async function clearPostmaster(data: string): Promise<number | undefined> {
  const pid = await pidOf(data);
  if (pid === undefined || !(await isServerOf(pid, data))) return pid;
  if (await parentLives(data)) throw inUse(data);
  for (const signal of ["SIGINT", "SIGQUIT"] as const) {
    try {
      process.kill(pid, signal);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "ESRCH") return pid;
      throw new EmbeddedPostgresError(`${leftover(pid, data)} cannot be stopped.`, { cause });
    }
    for (let i = 0; i < 1_000; i++) {
      if (!(await isServerOf(pid, data))) return pid;
      await sleep(20);
    }
  }
  throw new EmbeddedPostgresError(`${leftover(pid, data)} does not stop.`);
}

function leftover(pid: number, data: string): string {
  return `A PostgreSQL server (pid ${pid}) of a mesh that has ended runs on ${data} and`;
}

/** The error for a second mesh on a data directory. */
export function inUse(data: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `Another mesh is running on ${data}. Stop it, or set AGENTMESH_DATA_DIR to another directory for this one.`,
  );
}

async function pidOf(data: string): Promise<number | undefined> {
  const text = await readFile(join(data, "postmaster.pid"), "utf8").catch(() => "");
  const pid = Number.parseInt(text, 10);
  return pid > 0 ? pid : undefined;
}

async function parentLives(data: string): Promise<boolean> {
  const options = await readFile(join(data, "postmaster.opts"), "utf8").catch(() => "");
  const [, pid, start] = /agentmesh\.parent=(\d+):(\w*)/.exec(options) ?? [];
  return pid !== undefined && (await startOf(Number(pid))) === start;
}

/** Whether this process is a PostgreSQL server in this data directory, which is its working directory. */
async function isServerOf(pid: number, data: string): Promise<boolean> {
  if ((await startOf(pid)) === undefined) return false;
  if (process.platform !== "linux") return /postgres\s*$/.test(await ps(pid, "comm="));
  const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
  if (name.trim() !== "postgres") return false;
  const folder = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  return folder === undefined || folder === (await realpath(data));
}

/** When a process started, in a form that is only good for comparing; undefined when there is no such process (or a zombie). */
async function startOf(pid: number): Promise<string | undefined> {
  if (process.platform !== "linux") return (await ps(pid, "lstart=")).replaceAll(/\W/g, "") || undefined;
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  // proc(5): the name is in brackets and may hold any character; state is the 3rd field, start time the 22nd.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields === undefined || fields[0] === "Z" ? undefined : fields[19];
}

async function ps(pid: number, column: string): Promise<string> {
  const { stdout } = await promisify(execFile)("ps", ["-o", column, "-p", String(pid)]).catch(() => ({ stdout: "" }));
  return stdout.trim();
}
