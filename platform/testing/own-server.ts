import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { spawnTied, type TiedChild } from "../process/tied-child.ts";
import { freePort } from "./free-port.ts";
import { serverProgram, type TestServer } from "./missing-server.ts";

const readyWithinMs = 15_000;

/** A server process that a test owns: its port and its data folder stay the same when it is killed and started again. */
export interface OwnServer extends AsyncDisposable {
  readonly host: "127.0.0.1";
  readonly port: number;
  /** A temporary folder, removed at the end. */
  readonly folder: string;
  readonly pid: number | undefined;
  /** Ends the server and waits until it is gone; default SIGKILL. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Stops the server where it is, with its connections open (SIGSTOP); resolves when none of its threads runs. */
  freeze(): Promise<void>;
  /** Lets a frozen server go on. */
  thaw(): void;
  /** Starts it again after {@link kill}; resolves when it answers. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

interface ServerKind {
  server: TestServer;
  args(folder: string, port: number): string[];
  /** What the server must have said to count as ready, and what to say first to make it speak. */
  greeting: { send?: string; expect: RegExp };
}

/** Starts a server of its own for a test; throws `MissingServer` when its program is not installed. */
export async function startOwnServer(kind: ServerKind): Promise<OwnServer> {
  const program = serverProgram(kind.server);
  const folder = await mkdtemp(join(tmpdir(), `agentmesh-${kind.server}-`));
  let child: TiedChild | undefined;
  let lastLines: string[] = [];

  const launch = async (port: number) => {
    lastLines = [];
    const started = spawnTied(program, kind.args(folder, port), {
      cwd: folder,
      onLine(line) {
        lastLines = [...lastLines.slice(-9), line];
      },
    });
    const deadline = performance.now() + readyWithinMs;
    while (!(await answers(port, kind.greeting))) {
      if (started.exit !== undefined || performance.now() > deadline) {
        await started.stop("SIGKILL");
        throw new Error(`${kind.server} did not start:\n${lastLines.join("\n")}`);
      }
      await sleep(10);
    }
    // Another server may have got the port between our look and this one's start.
    if (started.exit !== undefined) throw new Error(`${kind.server} ended at its start:\n${lastLines.join("\n")}`);
    child = started;
  };

  const port = await launchOnFreePort(launch).catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true });
    throw error;
  });
  const stop = async () => {
    await child?.stop("SIGKILL");
    await rm(folder, { recursive: true, force: true });
  };
  return {
    host: "127.0.0.1",
    port,
    folder,
    get pid() {
      return child?.pid;
    },
    kill: async (signal = "SIGKILL") => void (await child?.stop(signal)),
    async freeze() {
      child?.kill("SIGSTOP");
      const pid = child?.pid;
      while (pid !== undefined && child?.exit === undefined && !(await isStopped(pid))) await sleep(1);
    },
    thaw: () => child?.kill("SIGCONT"),
    start: () => launch(port),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Whether all threads of a process are stopped: the third field of proc(5)'s stat is T then. */
async function isStopped(pid: number): Promise<boolean> {
  if (process.platform !== "linux") return true;
  const tasks = `/proc/${pid}/task`;
  const stats = await Promise.all((await readdir(tasks)).map((task) => readFile(`${tasks}/${task}/stat`, "utf8")));
  return stats.every((stat) => /\) [Tt] [^)]*$/.test(stat));
}

async function launchOnFreePort(launch: (port: number) => Promise<void>): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      await launch(port);
      return port;
    } catch (error) {
      if (attempt === 3) throw error;
    }
  }
}

async function answers(port: number, greeting: ServerKind["greeting"]): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port });
  try {
    const signal = AbortSignal.timeout(1_000);
    await once(socket, "connect", { signal });
    if (greeting.send !== undefined) socket.write(greeting.send);
    const [chunk] = (await once(socket, "data", { signal })) as [Buffer];
    return greeting.expect.test(chunk.toString());
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
