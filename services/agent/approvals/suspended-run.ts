import { toBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { durableEvent, type EventBody, type RunIds } from "../runs/event-envelope.ts";
import { type Awaited, type RunRow, runById } from "../store/run-store.ts";
import type { NewEvent } from "../store/run-writes.ts";
import { changeSuspended } from "../store/suspension-store.ts";
import { suspended } from "./suspend-run.ts";

/** What has become of a suspended run, to be told when the transaction has committed. */
export interface Advanced {
  tenantId: string;
  newest: AgentEvent;
  /** True: it goes on, and whoever is first takes it up. */
  goesOn: boolean;
}

/** Told of suspended runs that have moved on, after the commit. */
export type OnAdvanced = (advanced: Advanced) => void;

/** A suspended run, locked until the transaction ends; undefined when it is not suspended. */
export async function lockSuspended(tx: Tx, runId: string): Promise<RunRow | undefined> {
  const run = await runById(tx, runId, true);
  return run?.state === RunState.SUSPENDED ? run : undefined;
}

/**
 * Appends events to a suspended run, whose row is locked, and strikes out what has come. While something is still awaited
 * the run says so again; else it goes on, for this cause.
 */
export async function advance(
  tx: Tx,
  run: RunRow,
  bodies: readonly EventBody[],
  { came, cause, tenantId }: { came: (item: Awaited) => boolean; cause: string; tenantId: string },
): Promise<Advanced> {
  const awaiting = (run.awaiting ?? []).filter((item) => !came(item));
  const all = awaiting.length > 0 ? [...bodies, suspended(awaiting)] : bodies;
  const events = chained(idsOf(run), run.last_seq, all);
  const newest = events.at(-1);
  if (newest === undefined) throw new Error("a run was advanced by nothing");
  await changeSuspended(tx, run.run_id, { events: events.map(toRow), lastSeq: newest.seq, awaiting, cause });
  return { tenantId, newest, goesOn: awaiting.length === 0 };
}

/** Durable events that follow the newest one of a run that nobody owns. */
export function chained(ids: RunIds, lastSeq: bigint, bodies: readonly EventBody[]): AgentEvent[] {
  return bodies.map((body, i) => durableEvent(ids, lastSeq + BigInt(i) + 1n, lastSeq + BigInt(i), body));
}

export function idsOf(run: RunRow): RunIds {
  return { runId: run.run_id, sessionId: run.session_id, agentId: run.agent_id };
}

export function toRow(event: AgentEvent): NewEvent {
  return { seq: event.seq, type: event.type, event: toBinary(AgentEventSchema, event) };
}
