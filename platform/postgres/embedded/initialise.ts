import { chown, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { spawnTied } from "#platform/process/tied-child.ts";
import { syncDirectory } from "#platform/secrets/file-once.ts";
import { type Binaries, EmbeddedPostgresError } from "./binaries.ts";
import type { ServerUser } from "./server-user.ts";

export interface InitialiseOptions {
  binaries: Binaries;
  /** Directory that holds the data directory. */
  home: string;
  data: string;
  user: ServerUser;
  env: NodeJS.ProcessEnv;
  superuserPassword: string;
}

/**
 * Makes the data directory unless it is there: in a draft directory that is renamed when it is complete, so that a start
 * that was killed leaves nothing half done, and of two that run at the same time one wins. Then checks its version.
 */
export async function initialise(options: InitialiseOptions): Promise<void> {
  const { data, binaries } = options;
  if ((await versionOf(data)) === undefined) await runInitdb(options);
  const version = await versionOf(data);
  if (version !== String(binaries.major)) {
    throw new EmbeddedPostgresError(
      `The database in ${data} was made by PostgreSQL ${version}, and this installation brings PostgreSQL ${binaries.major}, ` +
        `which cannot open it. Use the version of agentmesh that made it to export what you need, or set AGENTMESH_DATA_DIR to another directory.`,
    );
  }
}

async function versionOf(data: string): Promise<string | undefined> {
  return (await readFile(join(data, "PG_VERSION"), "utf8").catch(unlessMissing))?.trim();
}

async function runInitdb({ binaries, home, data, user, env, superuserPassword }: InitialiseOptions): Promise<void> {
  await removeDrafts(home);
  const draft = join(home, `draft-${process.pid}`);
  await mkdir(draft, { mode: 0o700 });
  try {
    const passwordFile = join(draft, "password");
    await writeFile(passwordFile, superuserPassword, { mode: 0o600 });
    if (user.uid !== undefined && user.gid !== undefined) {
      for (const path of [draft, passwordFile]) await chown(path, user.uid, user.gid);
    }
    const said: string[] = [];
    const args = ["-D", join(draft, "data"), "--username=postgres", `--pwfile=${passwordFile}`, "--auth=scram-sha-256"];
    const settings = ["--encoding=UTF8", "--locale=C", "--no-instructions"];
    const onLine = (line: string) => said.push(line);
    const child = spawnTied(binaries.initdb, [...args, ...settings], { ...user, cwd: "/", env, onLine });
    const { code, signal, error } = await child.exited;
    if (said.some((line) => line.includes("could not look up effective user ID"))) throw namelessUser(user);
    if (code !== 0) {
      throw new EmbeddedPostgresError(
        `initdb failed (${error?.message ?? code ?? signal}):\n${said.slice(-20).join("\n")}`,
      );
    }
    // No network is listened on; on the socket everybody gives a password.
    await writeFile(join(draft, "data", "pg_hba.conf"), "local all all scram-sha-256\n");
    await rename(join(draft, "data"), data).catch((failure: NodeJS.ErrnoException) => {
      if (failure.code !== "ENOTEMPTY" && failure.code !== "EEXIST") throw failure;
    });
    await syncDirectory(home);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

function namelessUser({ uid }: ServerUser): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `PostgreSQL cannot make a database as user id ${uid ?? process.getuid?.()}, which has no name on this system. ` +
      "Give it one (a line in /etc/passwd), start as another user, or set DATABASE_URL.",
  );
}

/** What starts left that were killed while they made the data directory. */
async function removeDrafts(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    const pid = /^draft-(\d+)$/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) await rm(join(home, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}
