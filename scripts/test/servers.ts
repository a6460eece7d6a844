// The private servers of one run: found or installed, started once, handed to the tests by environment variables.
import { spawnSync } from "node:child_process";
import { MissingServer, serverProgram } from "#platform/testing/missing-server.ts";
import { postgresBinaries } from "#platform/testing/postgres-server.ts";
import { natsUrlVariable, privateNats } from "#platform/testing/private-nats.ts";
import { privatePostgres } from "#platform/testing/private-postgres.ts";
import { privateRedis, redisUrlVariable } from "#platform/testing/private-redis.ts";
import { installPackages, mayInstall } from "./install-servers.ts";

interface Server {
  /** Debian's package of it. */
  package: string;
  /** Throws {@link MissingServer}. */
  find(): void;
  /** One that cannot be disposed of ends with this process. */
  start(): Promise<{ url: string } & Partial<AsyncDisposable>>;
  /** The environment variable that tests read. */
  variable: string;
}

const servers: readonly Server[] = [
  {
    package: "postgresql",
    find: () => postgresBinaries(),
    start: () => privatePostgres(),
    variable: "AGENTMESH_TEST_POSTGRES",
  },
  {
    package: "redis-server",
    find: () => serverProgram("redis-server"),
    start: () => privateRedis(),
    variable: redisUrlVariable,
  },
  {
    package: "nats-server",
    find: () => serverProgram("nats-server"),
    start: () => privateNats(),
    variable: natsUrlVariable,
  },
];

/** Debian packages of programs that are no servers, by the tests that run them; without them these tests do not exist. */
const programs: Readonly<Record<string, string>> = { "tests/examples/browser.test.ts": "chromium" };

export interface StartedServers extends AsyncDisposable {
  environment: Record<string, string>;
  /** The command that would install what is missing, if anything is. */
  aptLine?: string;
}

/**
 * Starts every server that is installed or that this process may install; tests of the others skip themselves. Installs
 * the programs that `files`, the tests of this run, use besides.
 */
export async function startServers(files: readonly string[]): Promise<StartedServers> {
  const missing = () => servers.filter((server) => !isInstalled(server)).map((server) => server.package);
  if (missing().length > 0 && mayInstall()) installPackages(missing());
  const absent = files.flatMap((file) => programs[file] ?? []).filter((program) => !isProgram(program));
  if (absent.length > 0 && mayInstall()) installPackages(absent);
  const lacking = missing();
  const stack = new AsyncDisposableStack();
  // The servers run in the background: they do not keep this process alive, not even while they start.
  const awake = setInterval(() => {}, 60_000);
  const environment: Record<string, string> = {};
  try {
    for (const server of servers.filter((one) => !lacking.includes(one.package))) {
      delete process.env[server.variable]; // a server of this run's own, whatever the caller's environment says
      const started = await server.start();
      stack.defer(async () => started[Symbol.asyncDispose]?.());
      environment[server.variable] = started.url;
    }
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  } finally {
    clearInterval(awake);
  }
  return {
    environment,
    ...(lacking.length > 0 ? { aptLine: `apt-get install --no-install-recommends ${lacking.join(" ")}` } : {}),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function isProgram(name: string): boolean {
  return spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0;
}

function isInstalled(server: Server): boolean {
  try {
    server.find();
    return true;
  } catch (error) {
    if (error instanceof MissingServer) return false;
    throw error;
  }
}
