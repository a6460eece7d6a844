import { invariants, oneRunPerKey } from "./checkers.ts";
import type { FaultMesh } from "./fault-mesh.ts";
import type { RunHistory } from "./history.ts";
import type { Load } from "./load.ts";
import { report } from "./report.ts";
import type { Stored, StoredRun } from "./stored.ts";
import { TAKEOVER } from "./takeover.ts";

const NOT_STORED: StoredRun = { log: [], writtenAt: [], steps: [], total: undefined, failure: "", interrupted: false };

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
  const runs = await stored.runs();
  const histories = load.runs.flatMap((run): RunHistory[] => {
    const runId = run.acknowledged[0];
    if (runId === undefined) return [];
    const { watches } = run;
    const executions = mesh.world.executions.filter((one) => one.runId === runId);
    const modelCalls = mesh.books.callsOf(run.play.tag);
    const kept = runs.get(runId) ?? NOT_STORED;
    return [{ runId, watches, executions, modelCalls, ...kept }];
  });
  const lines = Object.entries(invariants(TAKEOVER, excused)).map(([name, check]) => ({
    name,
    violations: histories.flatMap((history) => check(history).map((what) => `${history.runId} ${what}`)),
  }));
  const answers = new Map(load.runs.map(({ key, acknowledged }) => [key, acknowledged]));
  const begun = new Map([...answers].filter(([, acknowledged]) => acknowledged.length > 0));
  lines.push({ name: "I6 one run per key", violations: oneRunPerKey(begun) });
  lines.push({ name: "sessions agree", violations: await stored.sessionFaults() });
  lines.push({ name: "callers served", violations: load.wrong });
  const failures: unknown[] = [];
  for (const { name, violations } of lines) {
    try {
      report(name, `${violations.length} of ${histories.length} runs`, "0", violations.length === 0, violations);
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) failures.push(new Error(mesh.complaints()));
  if (failures.length > 0) throw new AggregateError(failures, failures.map((one) => (one as Error).message).join("\n"));
  return runs;
}
