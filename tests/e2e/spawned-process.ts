import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Exit, spawnTied, type TiedChild } from "#platform/process/tied-child.ts";
import { freePort } from "#platform/testing/free-port.ts";

const ROOT = join(import.meta.dirname, "../..");
const READY_WITHIN_MS = 30_000;
const STOP_WITHIN_MS = 15_000;

/** A process of the mesh that a test started. */
export interface SpawnedProcess {
  readonly name: string;
  readonly pid: number;
  readonly baseUrl: string;
  /** Resolves when it has ended, however that came about. */
  readonly exited: Promise<Exit>;
  /** What it has printed so far. */
  output(): string;
  /** Ends it with SIGKILL and waits until it is gone. */
  kill(): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM, and its exit code. */
  stop(): Promise<number | null>;
}

/**
 * Starts `node mesh/main.ts` with these settings and nothing of this machine's, on a free port or on the PORT of the
 * settings; resolves when it is ready.
 */
export async function spawnMesh(name: string, settings: Record<string, string>): Promise<SpawnedProcess> {
  const port = settings["PORT"] ?? (await freePort());
  const cache = process.env["NODE_COMPILE_CACHE"];
  const lines: string[] = [];
  const child = spawnTied(process.execPath, [join(ROOT, "mesh/main.ts")], {
    cwd: ROOT,
    env: {
      PATH: process.env["PATH"] ?? "",
      TMPDIR: process.env["TMPDIR"] ?? "/tmp",
      ...(cache === undefined ? {} : { NODE_COMPILE_CACHE: cache }),
      AGENTMESH_GREET: "never",
      ...settings,
      PORT: String(port),
    },
    onLine: (line) => void lines.push(line),
  });
  const output = () => lines.join("\n");
  const baseUrl = `http://127.0.0.1:${port}`;
  await ready(child, baseUrl, name, output);
  return {
    name,
    pid: child.pid ?? 0,
    baseUrl,
    exited: child.exited,
    output,
    async kill() {
      await child.stop("SIGKILL");
    },
    signal: (signal) => void child.kill(signal),
    async stop() {
      const exit = await child.stop("SIGTERM", STOP_WITHIN_MS);
      return exit.code;
    },
  };
}

async function ready(child: TiedChild, baseUrl: string, name: string, output: () => string): Promise<void> {
  const deadline = performance.now() + READY_WITHIN_MS;
  while (!(await isUp(baseUrl))) {
    if (child.exit !== undefined || performance.now() > deadline) {
      await child.stop("SIGKILL");
      throw new Error(`${name} did not start:\n${output()}`);
    }
    await sleep(25);
  }
}

/** The gateway answers on REST, a service on the gRPC health service by the Connect protocol. */
async function isUp(baseUrl: string): Promise<boolean> {
  try {
    const response = await fetch(`${baseUrl}/grpc.health.v1.Health/Check`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    return response.ok && ((await response.json()) as { status?: string }).status === "SERVING";
  } catch {
    return false;
  }
}
