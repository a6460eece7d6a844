import { randomBytes } from "node:crypto";
import { chown, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnTied, type TiedChild } from "#platform/process/tied-child.ts";
import { freePort } from "#platform/testing/free-port.ts";
import { type PostgresServer, postgresBinaries, serverUser } from "#platform/testing/postgres-server.ts";

const READY_WITHIN_MS = 30_000;
/** Without fsync a crash of the server loses nothing, only one of the machine would. Commits are synchronous. */
const SETTINGS = [
  "fsync=off",
  "max_connections=200",
  "shared_buffers=64MB",
  "listen_addresses=127.0.0.1",
  "unix_socket_directories=",
];

/** A PostgreSQL server that a test alone uses: to be ended and started again, on the same port and data. */
export interface OwnPostgres extends PostgresServer, AsyncDisposable {
  /** SIGQUIT ends it as a crash does, with recovery at the next start; SIGINT breaks off what is open. */
  kill(signal: "SIGQUIT" | "SIGINT"): Promise<void>;
  /** Resolves when it takes connections. */
  start(): Promise<void>;
}

export async function startOwnPostgres(): Promise<OwnPostgres> {
  const binaries = postgresBinaries();
  const folder = await mkdtemp(join(tmpdir(), "agentmesh-own-postgres-"));
  const user = serverUser();
  if (user !== undefined) await chown(folder, user.uid, user.gid);
  const password = randomBytes(12).toString("hex");
  await writeFile(join(folder, "password"), password, { mode: 0o644 });
  const data = join(folder, "data");
  const port = await freePort();
  const said: string[] = [];
  let child: TiedChild | undefined;
  const run = { ...user, cwd: folder, env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" } };

  const start = async () => {
    const { promise: ready, resolve } = Promise.withResolvers<"ready">();
    const args = [...SETTINGS, `port=${port}`].flatMap((setting) => ["-c", setting]);
    const started = spawnTied(join(binaries, "postgres"), ["-D", data, ...args], {
      ...run,
      onLine(line) {
        said.push(line);
        said.splice(0, said.length - 100);
        if (line.includes("ready to accept connections")) resolve("ready");
      },
    });
    const late = setTimeout(() => started.kill("SIGKILL"), READY_WITHIN_MS);
    const outcome = await Promise.race([ready, started.exited]);
    clearTimeout(late);
    if (outcome !== "ready") throw new Error(`PostgreSQL did not start: ${said.join("\n")}`);
    child = started;
  };
  const dispose = async () => {
    await child?.stop("SIGQUIT");
    await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 25 });
  };
  try {
    const initdb = ["-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", join(folder, "password")];
    const options = ["-E", "UTF8", "--locale=C", "--no-sync"];
    const made = await spawnTied(join(binaries, "initdb"), [...initdb, ...options], {
      ...run,
      onLine: (line) => void said.push(line),
    }).exited;
    if (made.code !== 0) throw new Error(`initdb failed: ${said.join("\n")}`);
    await start();
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    url: `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`,
    kill: async (signal) => void (await child?.stop(signal)),
    start,
    [Symbol.asyncDispose]: dispose,
  };
}
