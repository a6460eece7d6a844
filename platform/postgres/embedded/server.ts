import { mkdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { type Exit, spawnTied, type TiedChild } from "#platform/process/tied-child.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { type Connection, clientConfig } from "../connection.ts";
import { EmbeddedPostgresError, findBinaries } from "./binaries.ts";
import { type Credentials, loadCredentials } from "./credentials.ts";
import { initialise } from "./initialise.ts";
import { ensureLibraryLinks } from "./library-links.ts";
import { clearPostmaster, inUse, parentSetting, thisParent } from "./postmaster.ts";
import { type ServerUser, serverUser } from "./server-user.ts";
import { socketDirectory } from "./socket-dir.ts";

export interface EmbeddedPostgresOptions {
  /** AGENTMESH_DATA_DIR; must exist. The server lives in its folder `postgres`. */
  dataDir: string;
  log: Pick<Log, "debug" | "warn">;
  /** Ends a start that is under way. */
  signal?: AbortSignal | undefined;
}

/** A PostgreSQL server that belongs to this process: it ends with it, however that ends. */
export interface EmbeddedPostgres extends AsyncDisposable {
  /** The superuser, for migrations. */
  readonly owner: Connection;
  /** A role without any rights of its own, for the services. */
  readonly app: Connection;
  /** Resolves when the server has ended without being asked to. */
  readonly failure: Promise<Error>;
  /** Shuts the server down in order (connections are closed, a checkpoint is written) and waits for it. */
  stop(): Promise<void>;
}

const startTimeoutMs = 300_000;
const stopGraceMs = 30_000;

/**
 * Starts the server that npm brought on a data directory, and makes that at the first start. It listens on a unix socket
 * in a private directory only, with passwords (scram) that only this user can read. Throws EmbeddedPostgresError with
 * what to do: no binaries for this system, another mesh on the directory, data of another version or user.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const dataDir = await realpath(options.dataDir);
  const home = join(dataDir, "postgres");
  const data = join(home, "data");
  const binaries = await findBinaries();
  await mkdir(home, { mode: 0o711 }).catch(unlessThere);
  const env = {
    PATH: process.env["PATH"],
    LC_ALL: "C",
    TZ: "UTC",
    ...(await ensureLibraryLinks(binaries, join(home, "lib"))),
  };
  const user = await serverUser(data, dataDir, [join(binaries.native, "bin"), join(binaries.native, "lib")]);
  const credentials = await loadCredentials(join(home, "credentials.json"));
  const stalePid = await clearPostmaster(data);
  await initialise({ binaries, home, data, user, env, superuserPassword: credentials.superuser });
  const socket = await socketDirectory(home, user);
  const launch = { command: binaries.postgres, args: await serverArguments(data, socket), user, stalePid, env };
  const child = await launchServer(launch, data, options);
  const connection = (name: string, password: string, database: string): Connection => ({
    host: socket,
    user: name,
    password,
    database,
  });
  try {
    await prepareDatabase(connection("postgres", credentials.superuser, "postgres"), credentials);
  } catch (error) {
    await child.stop("SIGINT", stopGraceMs);
    throw error;
  }
  let stopping = false;
  const failure = child.exited.then(async (exit) =>
    stopping ? new Promise<never>(() => {}) : new Error(`the embedded PostgreSQL server has ended (${describe(exit)})`),
  );
  const server: EmbeddedPostgres = {
    owner: connection("postgres", credentials.superuser, database),
    app: connection(appRole, credentials.app, database),
    failure,
    async stop() {
      stopping = true;
      await child.stop("SIGINT", stopGraceMs);
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
  return server;
}

const database = "agentmesh";
const appRole = "agentmesh";

async function serverArguments(data: string, socket: string): Promise<string[]> {
  const settings = {
    listen_addresses: "",
    unix_socket_directories: socket,
    unix_socket_permissions: "0700",
    password_encryption: "scram-sha-256",
    fsync: "on",
    synchronous_commit: "on",
    shared_buffers: "64MB",
    max_connections: "100",
    max_wal_size: "512MB",
    timezone: "UTC",
    log_timezone: "UTC",
    jit: "off",
    // ERROR and WARNING are below LOG here: they go to the client, which knows what of them may be logged.
    log_min_messages: "log",
    log_checkpoints: "off",
    log_line_prefix: "",
    log_error_verbosity: "terse",
    [parentSetting]: await thisParent(),
  };
  return ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
}

interface Launch {
  command: string;
  args: string[];
  user: ServerUser;
  stalePid: number | undefined;
  env: NodeJS.ProcessEnv;
}

/** Starts the process and waits until it takes connections, through crash recovery if need be. */
async function launchServer(
  launch: Launch,
  data: string,
  { log, signal }: EmbeddedPostgresOptions,
): Promise<TiedChild> {
  for (const startedAt = performance.now(); ; await sleep(100, undefined, { signal })) {
    signal?.throwIfAborted();
    const said: string[] = [];
    const ready = Promise.withResolvers<"ready">();
    const onLine = (line: string) => {
      said.push(line);
      said.splice(0, said.length - 20);
      if (line.includes("database system is ready to accept connections")) ready.resolve("ready");
      // In a shutdown each connection that is not closed yet is told so.
      const grave =
        /^(FATAL|PANIC)/.test(line) && !line.includes("terminating connection due to administrator command");
      log[grave ? "warn" : "debug"]({ component: "postgres" }, line);
    };
    // By this variable pg_ctl tells the server of a pid that a stale pid file may name although it is no server's.
    const env =
      launch.stalePid === undefined ? launch.env : { ...launch.env, PG_GRANDPARENT_PID: String(launch.stalePid) };
    const child = spawnTied(launch.command, launch.args, {
      ...launch.user,
      cwd: "/",
      env,
      deathSignal: "SIGINT",
      onLine,
    });
    const outcome = await settled(child, ready.promise, signal);
    if (outcome === "ready") return child;
    if (typeof outcome === "string") {
      await child.stop("SIGINT", stopGraceMs);
      signal?.throwIfAborted();
      throw new EmbeddedPostgresError(`The PostgreSQL server was not ready within ${startTimeoutMs / 1_000} s.`);
    }
    const text = said.join("\n");
    if (/lock file "postmaster.pid" already exists/.test(text)) throw inUse(data);
    // The last processes of a server that was killed may take a moment to notice.
    if (/pre-existing shared memory block/.test(text) && performance.now() - startedAt < 10_000) continue;
    throw new EmbeddedPostgresError(`The PostgreSQL server did not start (${describe(outcome)}):\n${text}`);
  }
}

async function settled(
  child: TiedChild,
  ready: Promise<"ready">,
  signal: AbortSignal | undefined,
): Promise<"ready" | "late" | Exit> {
  const late = Promise.withResolvers<"late">();
  const giveUp = () => late.resolve("late");
  const timer = setTimeout(giveUp, startTimeoutMs);
  signal?.addEventListener("abort", giveUp, { once: true });
  if (signal?.aborted) giveUp();
  try {
    return await Promise.race([ready, child.exited, late.promise]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", giveUp);
  }
}

/** Makes the services' login role and the database where they are missing. */
async function prepareDatabase(superuser: Connection, credentials: Credentials): Promise<void> {
  const client = new pg.Client(clientConfig(superuser, "agentmesh start", 10_000));
  await client.connect();
  try {
    const there = await client.query(
      "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS role, EXISTS (SELECT FROM pg_database WHERE datname = $2) AS database",
      [appRole, database],
    );
    if (!there.rows[0].role) {
      await client.query(`CREATE ROLE ${appRole} LOGIN NOINHERIT PASSWORD ${pg.escapeLiteral(credentials.app)}`);
    }
    if (!there.rows[0].database) await client.query(`CREATE DATABASE ${database}`);
  } finally {
    await client.end();
  }
}

function describe({ code, signal, error }: Exit): string {
  return error?.message ?? (signal === null ? `exit code ${code}` : signal);
}

function unlessThere(error: NodeJS.ErrnoException): void {
  if (error.code !== "EEXIST") throw error;
}
