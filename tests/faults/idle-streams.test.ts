import { Agent } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { collectGarbage } from "#bench/collect-garbage.ts";
import { cpuMicros, residentKib } from "#bench/proc-stat.ts";
import { spawnTied } from "#platform/process/tied-child.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import { HeldStreams } from "./held-streams.ts";
import { type Line, reportAll } from "./report.ts";
import { runClient } from "./run-client.ts";
import { messageOf } from "./scripted-model.ts";

const STREAMS = 5_000;
/** Runs that the streams watch, in equal parts; each has a model that has begun to answer and says nothing more. */
const RUNS = 50;
const WARM_UP = 200;
const TIMES_BARE = 1.3;
const CPU_PERCENT = 15;
/** V8 is still at work on what the opening has left. */
const COOLING_MS = 15_000;
/** Two heartbeats of every stream. */
const CPU_WINDOW_MS = 30_000;
const SETTLE_MS = 2_000;

/** What the service does by default, but for how many streams one tenant may have. */
const USUAL = {
  AGENTMESH_AGENT__LEASE: "10s",
  AGENTMESH_AGENT__HEARTBEAT: "3s",
  AGENTMESH_AGENT__REAPER_INTERVAL: "2s",
  AGENTMESH_AGENT__STREAM_HEARTBEAT: "15s",
  AGENTMESH_GATEWAY__TENANT_STREAMS: "10000",
  // To be told to collect their garbage.
  NODE_OPTIONS: "--inspect=127.0.0.1:0",
};

/** A process whose memory and time are measured. */
interface Measured {
  readonly pid: number;
  output(): readonly string[];
}

describeFaults("five thousand idle streams", { agents: 1, settings: USUAL }, (suite) => {
  test("cost hardly more than bare ones, and no time", { timeout: LIMIT_MS }, async () => {
    const { mesh } = suite();
    const [gateway] = mesh.gateways;
    const [agent] = mesh.agents;
    if (gateway === undefined || agent === undefined) throw new Error("no mesh");
    const runIds = await beginRuns(gateway.baseUrl, mesh.adminKey);
    const processes = [gateway, agent.process].map(({ pid, output }) => ({ pid, output: () => output().split("\n") }));
    const ours = await measure(processes, gateway.baseUrl, runIds, mesh.adminKey);
    const bare = await measureBare(runIds);
    const lost = ours.lost + bare.lost;
    const lines: Line[] = [
      ["streams", STREAMS, `= ${STREAMS}`, true],
      ["streams lost", lost, "0", lost === 0],
    ];
    for (const [i, name] of ["gateway", "agent"].entries()) {
      const [kib, bareKib] = [ours.kib[i] ?? Number.NaN, bare.kib[i] ?? Number.NaN];
      const times = kib / bareKib;
      const shown = `${times.toFixed(2)} (${kib.toFixed(1)} KiB, bare ${bareKib.toFixed(1)})`;
      lines.push([`${name}: memory of a stream in bare ones`, shown, `<= ${TIMES_BARE}`, times <= TIMES_BARE]);
      const percent = ours.cpuPercent[i] ?? Number.NaN;
      lines.push([`${name}: idle, % of a core`, percent.toFixed(1), `< ${CPU_PERCENT}`, percent < CPU_PERCENT]);
    }
    reportAll(lines);
  });
});

/** Runs whose models hang. */
async function beginRuns(gateway: string, key: string): Promise<string[]> {
  const agent = new Agent({ keepAlive: true });
  try {
    const client = runClient(gateway, key, agent);
    const play = { turns: 0, deltas: 4, paceMs: 0, toolMs: 0, hangs: true };
    const begun = Array.from({ length: RUNS }, (_, i) =>
      client.startRun({ message: messageOf({ tag: `idle${i}`, ...play }) }, { timeoutMs: 20_000 }),
    );
    return (await Promise.all(begun)).map(({ run }) => run?.runId ?? "");
  } finally {
    agent.destroy();
  }
}

/** A bare relay in a gateway's place and a bare server in an agent's. */
async function measureBare(runIds: readonly string[]) {
  await using server = await startBare();
  await using relay = await startBare(server.url);
  return await measure([relay, server], relay.url, runIds);
}

async function startBare(...upstream: string[]): Promise<Measured & AsyncDisposable & { readonly url: string }> {
  const lines: string[] = [];
  const args = ["--inspect=127.0.0.1:0", join(import.meta.dirname, "bare-streams.ts"), ...upstream];
  const child = spawnTied(process.execPath, args, { onLine: (line) => void lines.push(line) });
  const announcement = () => lines.find((line) => line.startsWith("{"));
  await until(() => announcement() !== undefined, "a bare server");
  const { url } = JSON.parse(announcement() ?? "") as { url: string };
  return { url, pid: child.pid ?? 0, output: () => lines, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() };
}

/** The part of a core that processes take while nothing happens. */
async function idlePercent(processes: readonly Measured[]): Promise<number[]> {
  await sleep(COOLING_MS);
  const before = processes.map(({ pid }) => cpuMicros(pid));
  await sleep(CPU_WINDOW_MS);
  return processes.map(({ pid }, i) => (cpuMicros(pid) - (before[i] ?? 0)) / (CPU_WINDOW_MS * 10));
}

/** What each stream adds to each process, in KiB, and, where there is a key, what the processes do while nothing happens. */
async function measure(processes: readonly Measured[], url: string, runIds: readonly string[], key?: string) {
  const resident = async () => {
    await sleep(SETTLE_MS);
    await Promise.all(processes.map(({ output }) => collectGarbage(output())));
    return processes.map(({ pid }) => residentKib(pid));
  };
  {
    // The first streams compile the code.
    await using warm = new HeldStreams(url, key);
    await warm.open(WARM_UP, runIds);
  }
  const before = await resident();
  await using streams = new HeldStreams(url, key);
  await streams.open(STREAMS, runIds);
  const kib = (await resident()).map((all, i) => (all - (before[i] ?? 0)) / STREAMS);
  const cpuPercent = key === undefined ? [] : await idlePercent(processes);
  return { kib, cpuPercent, lost: streams.lost };
}
