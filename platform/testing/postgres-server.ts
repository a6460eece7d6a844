import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chownSync, readdirSync, rmSync } from "node:fs";
import { mkdtemp, readdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { spawnTied } from "#platform/process/tied-child.ts";
import { serverProgram } from "./missing-server.ts";

/** A PostgreSQL server for tests: URL of its superuser, on 127.0.0.1. */
export interface PostgresServer {
  readonly url: string;
}

/** The folder with initdb and postgres: version 15 when there is one, for the SQL must run there. Throws MissingServer. */
export function postgresBinaries(): string {
  const debian = "/usr/lib/postgresql";
  const versions = readdirSafe(debian).sort((a, b) => Number(b === "15") - Number(a === "15") || Number(b) - Number(a));
  const folders = versions.map((version) => join(debian, version, "bin"));
  return dirname(serverProgram("postgres", [...folders, process.env["PATH"] ?? ""].join(delimiter)));
}

/** Starts a server in a folder of its own; it ends, and the folder goes, with this process. Not durable. */
export async function startPostgres(): Promise<PostgresServer> {
  const binaries = postgresBinaries();
  await sweep();
  const dir = await mkdtemp(join(tmpdir(), `${prefix}${process.pid}-`));
  const id = serverUser();
  if (id) chownSync(dir, id.uid, id.gid);
  const password = randomBytes(12).toString("hex");
  const data = join(dir, "data");
  await writeFile(join(dir, "password"), password, { mode: 0o644 });
  const initdb = [
    "-D",
    data,
    "-U",
    "postgres",
    "-A",
    "scram-sha-256",
    "--pwfile",
    join(dir, "password"),
    "-E",
    "UTF8",
    "--locale=C",
    "--no-sync",
  ];
  const run = { ...id, cwd: dir, env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" } };
  const said: string[] = [];
  const { code } = await spawnTied(join(binaries, "initdb"), initdb, { ...run, onLine: (line) => said.push(line) })
    .exited;
  if (code !== 0) throw new Error(`initdb failed: ${said.join("\n")}`);
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const settings = `fsync=off full_page_writes=off max_connections=200 shared_buffers=64MB listen_addresses=127.0.0.1 unix_socket_directories= port=${port}`;
    const ready = Promise.withResolvers<true>();
    const child = spawnTied(
      join(binaries, "postgres"),
      ["-D", data, ...settings.split(" ").flatMap((setting) => ["-c", setting])],
      {
        ...run,
        background: true,
        onLine: (line) => {
          said.push(line);
          said.splice(0, said.length - 100);
          if (line.includes("ready to accept connections")) ready.resolve(true);
        },
      },
    );
    // The child does not keep this process alive, so something else has to until it is ready.
    const waiting = setInterval(() => {}, 60_000);
    const outcome = await Promise.race([ready.promise, child.exited]);
    clearInterval(waiting);
    if (outcome === true) {
      process.once("exit", () => {
        child.kill("SIGKILL");
        rmSync(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 25 });
      });
      return { url: `postgresql://postgres:${password}@127.0.0.1:${port}/postgres` };
    }
    if (attempt === 3) throw new Error(`PostgreSQL for tests did not start: ${said.join("\n")}`);
  }
}

const prefix = "agentmesh-test-postgres-";

/** Removes what test processes left that were killed: the folder's name holds the pid. */
async function sweep(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = name.startsWith(prefix) ? Number(name.slice(prefix.length).split("-")[0]) : 0;
    if (pid > 0 && !isAlive(pid)) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/** PostgreSQL refuses to run as root: Debian's user postgres, else nobody. */
export function serverUser(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  try {
    const [uid, gid] = ["-u", "-g"].map((flag) =>
      Number(execFileSync("id", [flag, "postgres"], { stdio: ["ignore", "pipe", "ignore"] })),
    );
    return { uid: uid ?? 65534, gid: gid ?? 65534 };
  } catch {
    return { uid: 65534, gid: 65534 };
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => probe.once("listening", resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

function readdirSafe(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
