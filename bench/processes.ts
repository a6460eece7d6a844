import { spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { spawnTied, type TiedChild } from "#platform/process/tied-child.ts";
import { freePort } from "#platform/testing/free-port.ts";
import { descendants } from "./proc-stat.ts";

const ROOT = join(import.meta.dirname, "..");
const READY_WITHIN_MS = 60_000;
/** Flags for the service's Node, such as --cpu-prof. */
const SERVICE_FLAGS = (process.env["BENCH_SERVICE_FLAGS"] ?? "").split(" ").filter((flag) => flag !== "");

/** Limits are asked as ever, and never reached: begun runs of the bench do not end. */
const UNREACHED_LIMITS = {
  ...Object.fromEntries(
    ["TENANT", "KEY"].flatMap((whose) =>
      ["RUNS", "WRITES", "READS"].map((what) => [`AGENTMESH_GATEWAY__RATES__${whose}_${what}`, "100000"]),
    ),
  ),
  AGENTMESH_AGENT__POOL__RUNS: "100000",
};

export const SERVER_CORE = 0;
export const OTHER_CORE = 1;

/** A server that the bench started. */
export interface Server extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
  /** The first lines that it printed. */
  readonly output: readonly string[];
}

/** How the servers of the bench are started. */
export interface StartOptions {
  readonly pinned: boolean;
  /** With an inspector, so that it can be told to collect its garbage. */
  readonly inspected?: boolean;
}

/** The service, with its administrator's key. */
export interface Service extends Server {
  readonly key: string;
  /** Where its PostgreSQL, state and all, is kept. */
  readonly dataDir: string;
}

/** Whether processes can be pinned here: two cores and util-linux's taskset. */
export function canPin(): boolean {
  const probe = spawnSync("taskset", ["-c", `${SERVER_CORE},${OTHER_CORE}`, "true"], { stdio: "ignore" });
  return process.platform === "linux" && probe.status === 0;
}

/** Moves every thread of running processes to a core. */
export function pin(pids: readonly number[], core: number): void {
  // One that has ended meanwhile needs no core.
  for (const pid of pids) spawnSync("taskset", ["-a", "-cp", String(core), String(pid)], { stdio: "ignore" });
}

/** The scripted model server, on the load's core. */
export async function startModel({ pinned }: StartOptions): Promise<Server> {
  return announced(["platform/testing/model-server/main.ts"], pinned ? OTHER_CORE : undefined);
}

/** The bare relay, on the servers' core. */
export async function startRelay(modelUrl: string, options: StartOptions): Promise<Server> {
  return announced([...flags(options), "bench/relay.ts", modelUrl], options.pinned ? SERVER_CORE : undefined);
}

/** The whole service in one process on the servers' core; its PostgreSQL is moved to the other one. */
export async function startService(modelUrl: string, options: StartOptions): Promise<Service> {
  const { pinned } = options;
  await using undo = new AsyncDisposableStack();
  const dataDir = await mkdtemp(join(tmpdir(), "agentmesh-bench-"));
  undo.defer(() => rm(dataDir, { recursive: true, force: true }));
  const port = await freePort();
  const child = spawn([...SERVICE_FLAGS, ...flags(options), "mesh/main.ts"], pinned ? SERVER_CORE : undefined, {
    AGENTMESH_ENV: "production",
    AGENTMESH_DATA_DIR: dataDir,
    AGENTMESH_GREET: "never",
    AGENTMESH_SERVER__STOP_GRACE: "100ms",
    ...UNREACHED_LIMITS,
    ANTHROPIC_API_KEY: "bench",
    ANTHROPIC_BASE_URL: modelUrl,
    PORT: String(port),
  });
  undo.defer(async () => void (await child.tied.stop("SIGTERM", 20_000)));
  const url = `http://127.0.0.1:${port}`;
  await until(child, async () => {
    const response = await fetch(`${url}/health/ready`);
    await response.arrayBuffer();
    return response.ok;
  });
  const key = (await readFile(join(dataDir, "admin-key"), "utf8")).trim();
  const pid = child.tied.pid ?? 0;
  if (pinned) pin(descendants(pid), OTHER_CORE);
  const owned = undo.move();
  return { url, pid, key, dataDir, output: child.output, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function flags({ inspected = false }: StartOptions): string[] {
  return inspected ? ["--inspect=127.0.0.1:0"] : [];
}

interface Spawned {
  readonly tied: TiedChild;
  readonly output: string[];
}

function spawn(args: readonly string[], core: number | undefined, env: Record<string, string> = {}): Spawned {
  const output: string[] = [];
  const command = [process.execPath, ...args];
  const [program = "", ...rest] = core === undefined ? command : ["taskset", "-c", String(core), ...command];
  const tied = spawnTied(program, rest, {
    cwd: ROOT,
    env: { PATH: process.env["PATH"] ?? "", TMPDIR: tmpdir(), ...env },
    onLine: (line) => {
      if (output.length < 100) output.push(line);
    },
  });
  return { tied, output };
}

/** A program that prints the line `{"url": …}`. */
async function announced(args: readonly string[], core: number | undefined): Promise<Server> {
  const child = spawn(args, core);
  try {
    const announcement = () => child.output.find((line) => line.startsWith("{"));
    await until(child, async () => announcement() !== undefined);
    const { url } = JSON.parse(announcement() ?? "") as { url: string };
    const { output, tied } = child;
    return { url, pid: tied.pid ?? 0, output, [Symbol.asyncDispose]: () => tied[Symbol.asyncDispose]() };
  } catch (error) {
    await child.tied.stop();
    throw error;
  }
}

async function until({ tied, output }: Spawned, ready: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + READY_WITHIN_MS;
  while (!(await ready().catch(() => false))) {
    if (tied.exit !== undefined || performance.now() > deadline) {
      throw new Error(`a server of the bench did not start:\n${output.join("\n")}`);
    }
    await sleep(25);
  }
}
