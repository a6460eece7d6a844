import { readFileSync } from "node:fs";
import { Agent } from "node:http";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, ConnectError } from "@connectrpc/connect";
import type { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { resumesExactly, shownIsCommitted } from "./checkers.ts";
import { type FaultMesh, LEASE_MS } from "./fault-mesh.ts";
import { describeFaults, LIMIT_MS } from "./fault-suite.ts";
import type { SeenEvent, Watch } from "./history.ts";
import { runClient, seen } from "./load.ts";
import { report } from "./report.ts";
import { messageOf } from "./scripted-model.ts";

const READING = 450;
const NOT_READING = 50;
const SLOWER_PERCENT = 10;
const BESIDE_MS = 3_000;
const GROWTH_MIB = 512;
/** Ten seconds of pieces, so much in all that whoever does not read has long filled every buffer on the way. */
const PLAY = { turns: 0, deltas: 40, paceMs: 250, toolMs: 0, bytes: 100_000 };

/** Nobody dies here: what the crowd costs must not be mistaken for a dead owner. */
const UNHURRIED = { AGENTMESH_AGENT__LEASE: "30s", AGENTMESH_AGENT__HEARTBEAT: "3s" };

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
      const sockets: Socket[] = [];
      try {
        const [client] = clients as [Client<typeof RunService>];
        const alone = await begin(client, "alone");
        await watched(client, alone);
        const before = memoryOf(mesh);
        const runId = await begin(client, "crowd");
        for (let i = 0; i < NOT_READING; i++) sockets.push(watchWithoutReading(mesh, i, runId));
        const reading = Promise.all(
          Array.from({ length: READING }, (_, i) => watched(clients[i % clients.length] as typeof client, runId)),
        );
        await sleep(PLAY.paceMs * 10);
        const asked = performance.now();
        await client.getRun({ runId: await begin(client, "beside") }, { timeoutMs: BESIDE_MS });
        const beside = Math.round(performance.now() - asked);
        const readers = await reading;
        const grown = Math.max(...memoryOf(mesh).map((bytes, i) => bytes - (before[i] ?? 0)));
        const runs = await stored.runs();
        const stopwatch = (id: string) => {
          const at = runs.get(id)?.writtenAt ?? [];
          return (at.at(-1) ?? 0) - (at[0] ?? 0);
        };
        const aloneMs = stopwatch(alone);
        const slower = (stopwatch(runId) / aloneMs - 1) * 100;
        const log = runs.get(runId);
        const history = { runId, watches: readers.flatMap(({ watches }) => watches), executions: [], modelCalls: [] };
        const checked = log === undefined ? undefined : { ...history, ...log };
        const wrong = checked === undefined ? ["no log"] : [...shownIsCommitted(checked), ...resumesExactly(checked)];
        report("watchers", READING + NOT_READING, `= ${READING + NOT_READING}`, true);
        const cuts = readers.flatMap((reader) => reader.cuts);
        report(
          "end of the run",
          `${log?.log.at(-1)?.type}`,
          "= run_completed",
          log?.log.at(-1)?.type === "run_completed",
        );
        report("a call beside the crowd, ms", beside, `<= ${BESIDE_MS}`, beside <= BESIDE_MS);
        report("readers cut off", cuts.length, "0", cuts.length === 0, [...new Set(cuts), mesh.complaints()]);
        report("readers that missed something", wrong.length, "0", wrong.length === 0, wrong);
        report("producer slower by, %", slower.toFixed(1), `<= ${SLOWER_PERCENT}`, slower <= SLOWER_PERCENT);
        report("memory grown, MiB", Math.round(grown / 2 ** 20), `<= ${GROWTH_MIB}`, grown <= GROWTH_MIB * 2 ** 20);
        // Whoever comes late gets the whole log.
        const late = await watched(client, runId);
        const got = late.watches.flatMap(({ events }) => events.filter(({ durable }) => durable)).length;
        const complete = log !== undefined && got === log.log.length;
        report("events that a late joiner got", got, `= ${log?.log.length}`, complete);
      } catch (error) {
        throw new AggregateError([error], `${(error as Error).message}\n${mesh.complaints()}`);
      } finally {
        for (const socket of sockets) socket.destroy();
        agent.destroy();
        await sleep(LEASE_MS);
      }
    });
  },
);

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

/** Resident memory of the processes that watchers go through, in bytes. */
function memoryOf({ gateways, agents }: FaultMesh): number[] {
  return [...gateways, ...agents.map(({ process }) => process)].map(({ pid }) => {
    const [, kib = "0"] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    return Number(kib) * 1024;
  });
}
