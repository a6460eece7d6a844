import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { RunRow } from "../store/run-store.ts";

const OVER: ReadonlySet<number> = new Set([RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED]);

/** True when a run has ended. */
export function isOver(run: Pick<RunRow, "state">): boolean {
  return OVER.has(run.state);
}

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(RunState).map(([name, n]) => [n, name]));

/** A state's name, as facts of errors tell it. */
export function stateName({ state }: { state: RunState }): string {
  return NAMES.get(state) ?? "UNSPECIFIED";
}
