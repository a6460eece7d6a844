import { Agent } from "node:http";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, ConnectError } from "@connectrpc/connect";
import { collectGarbage } from "#bench/collect-garbage.ts";
import { residentKib } from "#bench/proc-stat.ts";
import type { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { resumesExactly, shownIsCommitted } from "./checkers.ts";
import type { FaultMesh } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import type { SeenEvent, Watch } from "./history.ts";
import { quantile, report } from "./report.ts";
import { runClient, seen } from "./run-client.ts";
import { messageOf } from "./scripted-model.ts";
import { LONG } from "./seed.ts";
import type { StoredRun } from "./stored.ts";

const READING = 450;
const NOT_READING = 50;
const SLOWER_PERCENT = 10;
const BESIDE_MS = 3_000;
/** The crowd does not come in one instant. */
const JOINING_MS = 1_500;
/** What the crowd may make a process hold, its garbage collected: a full buffer of 256 KiB for each, on its way in and out. */
const HELD_MIB = 256;
/** A run with one watcher and a run with the crowd, in turn. */
const ROUNDS = LONG ? 10 : 3;
/** Seven seconds of pieces, so much in all that whoever does not read has long filled every buffer on the way. */
const PLAY = { turns: 0, deltas: 28, paceMs: 250, toolMs: 0, bytes: 100_000 };

/** Nobody dies here: what the crowd costs must not be mistaken for a dead owner. */
const UNHURRIED = {
  AGENTMESH_AGENT__LEASE: "30s",
  AGENTMESH_AGENT__HEARTBEAT: "3s",
  // To be told to collect their garbage.
  NODE_OPTIONS: "--inspect=127.0.0.1:0",
};

interface Watched {
  readonly watches: readonly Watch[];
  /** Why streams broke off. */
  readonly cuts: readonly string[];
}

describeFaults(
  "a run with 500 watchers of whom 50 never read",
  { gateways: 2, agents: 1, settings: UNHURRIED },
  (suite) => {
    test("goes on as fast as with one, in bounded memory, and shows every reader everything", {
      timeout: LIMIT_MS,
    }, async () => {
      const { mesh, stored } = suite();
      const agent = new Agent({ keepAlive: true });
      const clients = mesh.gateways.map(({ baseUrl }) => runClient(baseUrl, mesh.adminKey, agent));
      const [client] = clients as [Client<typeof RunService>];
      const crowd: Crowd[] = [];
      try {
        const alone: string[] = [];
        for (let round = 0; round < ROUNDS; round++) {
          alone.push(await begin(client, `alone${round}`));
          await watched(client, alone.at(-1) as string);
          crowd.push(await gather(mesh, clients, round));
        }
        const runs = await stored.runs();
        const took = (ids: readonly string[]) => ids.map((id) => spanOf(runs.get(id))).toSorted((a, b) => a - b);
        const [aloneMs, crowdMs] = [took(alone), took(crowd.map(({ runId }) => runId))];
        const medians = [aloneMs, crowdMs].map((times) => quantile(times, 0.5)) as [number, number];
        const slower = (medians[1] / medians[0] - 1) * 100;
        const wrong = crowd.flatMap(({ runId, readers }) => faultsOf(runId, runs.get(runId), readers));
        const ends = crowd.map(({ runId }) => runs.get(runId)?.log.at(-1)?.type);
        const ended = ends.every((end) => end === "run_completed");
        const cuts = crowd.flatMap(({ readers }) => readers.flatMap((reader) => reader.cuts));
        const besideMs = Math.max(...crowd.map((one) => one.besideMs));
        const heldMib = Math.max(...crowd.map((one) => one.heldMib));
        report("watchers", READING + NOT_READING, `= ${READING + NOT_READING}`, true);
        report("ends of the runs", [...new Set(ends)].join(" "), "= run_completed", ended);
        report("a call beside the crowd, ms", besideMs, `<= ${BESIDE_MS}`, besideMs <= BESIDE_MS);
        report("readers cut off", cuts.length, "0", cuts.length === 0, [...new Set(cuts), mesh.complaints()]);
        report("readers that missed something", wrong.length, "0", wrong.length === 0, wrong);
        const times = `${aloneMs.map(Math.round)} ms alone, ${crowdMs.map(Math.round)} ms watched`;
        const shown = `${slower.toFixed(1)} (${times}, in turn)`;
        report("producer slower by, %", shown, `<= ${SLOWER_PERCENT}`, slower <= SLOWER_PERCENT);
        report("memory held for the crowd, MiB", heldMib, `<= ${HELD_MIB}`, heldMib <= HELD_MIB);
        // Whoever comes late gets the whole log.
        const last = crowd.at(-1)?.runId ?? "";
        const late = await watched(client, last);
        const got = late.watches.flatMap(({ events }) => events.filter(({ durable }) => durable)).length;
        const all = runs.get(last)?.log.length;
        report("events that a late joiner got", got, `= ${all}`, got === all);
      } catch (error) {
        throw new AggregateError([error], `${(error as Error).message}\n${mesh.complaints()}`);
      } finally {
        agent.destroy();
      }
    });
  },
);

/** A run with all its watchers. */
interface Crowd {
  readonly runId: string;
  readonly readers: readonly Watched[];
  /** How long another caller had to wait meanwhile, for a run and for an answer about it. */
  readonly besideMs: number;
  /** Resident memory that came on top in the process where it was most, after a collection, with everybody there. */
  readonly heldMib: number;
}

async function gather(mesh: FaultMesh, clients: readonly Client<typeof RunService>[], round: number): Promise<Crowd> {
  const [client] = clients as [Client<typeof RunService>];
  const before = await memoryOf(mesh);
  const sockets: Socket[] = [];
  try {
    const runId = await begin(client, `crowd${round}`);
    for (let i = 0; i < NOT_READING; i++) sockets.push(watchWithoutReading(mesh, i, runId));
    const reading = Promise.all(
      Array.from({ length: READING }, async (_, i) => {
        await sleep((i / READING) * JOINING_MS);
        return watched(clients[i % clients.length] as typeof client, runId);
      }),
    );
    await sleep(PLAY.paceMs * 8);
    const asked = performance.now();
    await client.getRun({ runId: await begin(client, `beside${round}`) }, { timeoutMs: BESIDE_MS });
    const besideMs = Math.round(performance.now() - asked);
    await sleep(PLAY.paceMs * 12);
    const held = (await memoryOf(mesh)).map((kib, i) => kib - (before[i] ?? 0));
    return { runId, readers: await reading, besideMs, heldMib: Math.round(Math.max(...held) / 1024) };
  } finally {
    for (const socket of sockets) socket.destroy();
  }
}

/** From the first event to the last one, by the database's clock, in milliseconds. */
function spanOf(run: StoredRun | undefined): number {
  return (run?.writtenAt.at(-1) ?? 0) - (run?.writtenAt[0] ?? 0);
}

function faultsOf(runId: string, run: StoredRun | undefined, readers: readonly Watched[]): string[] {
  if (run === undefined) return [`${runId} has no log`];
  const watches = readers.flatMap((reader) => reader.watches);
  const history = { runId, watches, executions: [], modelCalls: [], refused: false, said: [], ...run };
  return [...shownIsCommitted(history), ...resumesExactly(history)];
}

async function begin(client: Client<typeof RunService>, tag: string): Promise<string> {
  const { run } = await client.startRun({ message: messageOf({ tag, ...PLAY }) });
  return run?.runId ?? "";
}

/** Watches to the end; one that is cut off comes back where it was. */
async function watched(client: Client<typeof RunService>, runId: string): Promise<Watched> {
  const watches: Watch[] = [];
  const cuts: string[] = [];
  for (let after = 0n; ; ) {
    const events: SeenEvent[] = [];
    try {
      for await (const { frame } of client.streamRunEvents({ runId, afterSeq: after })) {
        if (frame.case !== "event") continue;
        events.push(seen(frame.value));
        after = frame.value.seq;
      }
      watches.push({ after: watches.at(-1)?.events.at(-1)?.seq ?? 0n, events, whole: true });
      return { watches, cuts };
    } catch (error) {
      cuts.push(ConnectError.from(error).message);
      if (cuts.length > 3) throw error;
      watches.push({ after: watches.at(-1)?.events.at(-1)?.seq ?? 0n, events, whole: false });
      await sleep(100);
    }
  }
}

function watchWithoutReading({ gateways, adminKey }: FaultMesh, i: number, runId: string): Socket {
  const { hostname: host, port } = new URL(gateways[i % gateways.length]?.baseUrl ?? "");
  const socket = connect({ host, port: Number(port) });
  socket.on("error", () => {}); // the server may give it up
  socket.pause();
  socket.write(
    `GET /api/v1/runs/${runId}/events:stream HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer ${adminKey}\r\n\r\n`,
  );
  return socket;
}

/** Resident memory of the processes that watchers go through, their garbage collected, in KiB. */
async function memoryOf({ gateways, agents }: FaultMesh): Promise<number[]> {
  const processes = [...gateways, ...agents.map(({ process }) => process)];
  await Promise.all(processes.map(({ output }) => collectGarbage(output().split("\n"))));
  return processes.map(({ pid }) => residentKib(pid));
}
