import { setTimeout as sleep } from "node:timers/promises";
import { invariants, nothingHeld, oneRunPerKey } from "./checkers.ts";
import type { FaultMesh } from "./fault-mesh.ts";
import type { RunHistory } from "./history.ts";
import type { Load } from "./load.ts";
import { permitsHeld } from "./permits-held.ts";
import { report } from "./report.ts";
import type { Stored, StoredRun } from "./stored.ts";

const NOT_STORED: StoredRun = {
  log: [],
  writtenAt: [],
  steps: [],
  total: undefined,
  usage: undefined,
  ledger: [],
  failure: "",
  failureText: "",
  allowed: [],
  heard: [],
  owners: 1,
};
/** An owner that lost its run books what it had paid for when it can, also after the run has ended. */
const BOOKED_WITHIN_MS = 5_000;

interface Line {
  readonly name: string;
  readonly violations: readonly string[];
}

/**
 * Puts together what clients, log, world and model know of every run of a load, and holds it against the invariants; a
 * line for each. `excused`: reasons by which runs may fail, for what they need was away. Fails after all lines are printed.
 */
export async function auditRuns(
  mesh: FaultMesh,
  load: Load,
  stored: Stored,
  excused: readonly string[] = [],
): Promise<ReadonlyMap<string, StoredRun>> {
  const held = await permitsHeld(mesh.redis.url);
  let runs = await stored.runs();
  let lines = invariantLines(mesh, load, runs, excused);
  for (const until = Date.now() + BOOKED_WITHIN_MS; !isGood(lines) && Date.now() < until; await sleep(500)) {
    runs = await stored.runs();
    lines = invariantLines(mesh, load, runs, excused);
  }
  const answers = new Map(load.runs.map(({ key, acknowledged }) => [key, acknowledged]));
  const begun = new Map([...answers].filter(([, acknowledged]) => acknowledged.length > 0));
  lines.push({ name: "I6 one run per key", violations: oneRunPerKey(begun) });
  lines.push({ name: "I10 permits held at idle", violations: nothingHeld({ permits: held }) });
  lines.push({ name: "sessions agree", violations: await stored.sessionFaults() });
  lines.push({ name: "callers served", violations: load.wrong });
  const failures: unknown[] = [];
  for (const { name, violations } of lines) {
    try {
      report(name, `${violations.length} of ${load.runs.length} runs`, "0", violations.length === 0, violations);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) failures.push(new Error(mesh.complaints()));
  if (failures.length > 0) throw new AggregateError(failures, failures.map((one) => (one as Error).message).join("\n"));
  return runs;
}

function invariantLines(
  mesh: FaultMesh,
  load: Load,
  runs: ReadonlyMap<string, StoredRun>,
  excused: readonly string[],
): Line[] {
  const goneOnWith = new Set(load.runs.map(({ retryOf }) => retryOf));
  const histories = load.runs.flatMap((run): RunHistory[] => {
    const runId = run.acknowledged[0];
    if (runId === undefined) return [];
    const { watches, said } = run;
    const refused = run.play.refused === true;
    const executions = mesh.world.executions.filter((one) => one.runId === runId);
    // A refusal is no call of these books, and comes first: all of them are of the run that went on.
    const modelCalls = goneOnWith.has(run) ? [] : mesh.books.callsOf(run.play.tag);
    return [{ runId, watches, executions, modelCalls, refused, said, ...(runs.get(runId) ?? NOT_STORED) }];
  });
  return Object.entries(invariants(excused)).map(([name, check]) => ({
    name,
    violations: histories.flatMap((history) => check(history).map((what) => `${history.runId} ${what}`)),
  }));
}

function isGood(lines: readonly Line[]): boolean {
  return lines.every(({ violations }) => violations.length === 0);
}
