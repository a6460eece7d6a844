import type { RunOutcome, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import type { Cursor } from "../domain/cursor.ts";
import { LeaseLost } from "../errors.ts";

/** How many event numbers an owner gets at a time. */
export const SEQ_BLOCK = 1_000_000n;

/** A row of agent.runs. */
export interface RunRow {
  run_id: string;
  session_id: string;
  end_user_id: string;
  agent_id: string;
  agent_version: number;
  state: RunState;
  outcome: RunOutcome;
  error: Uint8Array | null;
  usage: Uint8Array | null;
  response: string;
  principal: Principal;
  owner: string;
  owner_address: string;
  epoch: number;
  seq_reserved: bigint;
  last_seq: bigint;
  open_step: number;
  create_time: Date;
  update_time: Date;
  end_time: Date | null;
  /** create_time with microseconds, for page cursors. */
  sort_time: string;
}

/** What every write of an owner must still hold: the run, and the epoch that it was given it in. */
export interface Fence {
  tenantId: string;
  runId: string;
  owner: string;
  epoch: number;
}

export interface NewRun {
  runId: string;
  sessionId: string;
  endUserId: string;
  agentId: string;
  agentVersion: number;
  principal: Principal;
  owner: string;
  ownerAddress: string;
  leaseMs: number;
}

export interface NewEvent {
  seq: bigint;
  type: string;
  event: Uint8Array;
}

export interface RunFilter {
  endUserId: string | undefined;
  sessionId: string | undefined;
  agentId: string | undefined;
  state: number | undefined;
  createdAfter: Date | undefined;
  createdBefore: Date | undefined;
}

const COLUMNS = `run_id, session_id, end_user_id, agent_id, agent_version, state, outcome, error, usage, response, principal,
  owner, owner_address, epoch, seq_reserved::text, last_seq::text, open_step, create_time, update_time, end_time,
  create_time::text AS sort_time`;

type RawRow = Omit<RunRow, "seq_reserved" | "last_seq"> & { seq_reserved: string; last_seq: string };

function runRow(raw: RawRow): RunRow {
  return { ...raw, seq_reserved: BigInt(raw.seq_reserved), last_seq: BigInt(raw.last_seq) };
}

/** Inserts a run that is already leased to its owner (state RUNNING). */
export async function insertRun(tx: Tx, run: NewRun): Promise<RunRow> {
  const raw = await tx.one<RawRow>(
    `INSERT INTO agent.runs (tenant_id, run_id, session_id, end_user_id, agent_id, agent_version, state, principal, owner,
       owner_address, lease_expires, seq_reserved)
     VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, 2, $6, $7, $8,
       clock_timestamp() + $9 * interval '1 ms', $10) RETURNING ${COLUMNS}`,
    [
      run.runId,
      run.sessionId,
      run.endUserId,
      run.agentId,
      run.agentVersion,
      JSON.stringify(run.principal),
      run.owner,
      run.ownerAddress,
      run.leaseMs,
      SEQ_BLOCK.toString(),
    ],
  );
  return runRow(raw as RawRow);
}

/** A run; `lock` waits for whoever writes to it and keeps others from doing so until the transaction ends. */
export async function runById(tx: Tx, runId: string, lock = false): Promise<RunRow | undefined> {
  const raw = await tx.one<RawRow>(
    `SELECT ${COLUMNS} FROM agent.runs
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1${lock ? " FOR UPDATE" : ""}`,
    [runId],
  );
  return raw === undefined ? undefined : runRow(raw);
}

export async function listRuns(
  tx: Tx,
  filter: RunFilter,
  page: { limit: number; after: Cursor | undefined },
): Promise<RunRow[]> {
  const rows = await tx.query<RawRow>(
    `SELECT ${COLUMNS} FROM agent.runs
     WHERE tenant_id = agentmesh.current_tenant()
       AND ($1::text IS NULL OR end_user_id = $1) AND ($2::text IS NULL OR session_id = $2)
       AND ($3::text IS NULL OR agent_id = $3) AND ($4::smallint IS NULL OR state = $4)
       AND ($5::timestamptz IS NULL OR create_time >= $5) AND ($6::timestamptz IS NULL OR create_time < $6)
       AND ($7::timestamptz IS NULL OR (create_time, run_id) < ($7, $8))
     ORDER BY create_time DESC, run_id DESC LIMIT $9`,
    [
      filter.endUserId ?? null,
      filter.sessionId ?? null,
      filter.agentId ?? null,
      filter.state ?? null,
      filter.createdAfter ?? null,
      filter.createdBefore ?? null,
      page.after?.time ?? null,
      page.after?.id ?? null,
      page.limit,
    ],
  );
  return rows.map(runRow);
}

/** Appends durable events under the fence. Throws LeaseLost when another process owns the run or it has ended. */
export async function appendEvents(
  tx: Tx,
  fence: Fence,
  events: readonly NewEvent[],
  openStep: number | undefined,
): Promise<void> {
  const last = events.at(-1);
  if (last === undefined) return;
  const changed = await tx.execute(
    `UPDATE agent.runs SET last_seq = $4, open_step = coalesce($5, open_step), update_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND owner = $2 AND epoch = $3 AND state IN (1, 2)
       AND seq_reserved >= $4`,
    [fence.runId, fence.owner, fence.epoch, last.seq.toString(), openStep ?? null],
  );
  if (changed !== 1) throw new LeaseLost(fence.runId);
  await tx.execute(
    `INSERT INTO agent.run_events (tenant_id, run_id, seq, type, event)
     SELECT agentmesh.current_tenant(), $1, * FROM unnest($2::bigint[], $3::text[], $4::bytea[])`,
    [
      fence.runId,
      events.map(({ seq }) => seq.toString()),
      events.map(({ type }) => type),
      events.map(({ event }) => event),
    ],
  );
}

/** Ends a run under the fence, in the transaction that appends its terminal event. */
export async function endRun(
  tx: Tx,
  fence: Fence,
  end: { state: number; outcome: number; error: Uint8Array | null; usage: Uint8Array; response: string },
): Promise<void> {
  const changed = await tx.execute(
    `UPDATE agent.runs SET state = $4, outcome = $5, error = $6, usage = $7, response = $8, open_step = 0,
       end_time = clock_timestamp(), update_time = clock_timestamp()
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND owner = $2 AND epoch = $3 AND state IN (1, 2)`,
    [fence.runId, fence.owner, fence.epoch, end.state, end.outcome, end.error, end.usage, end.response],
  );
  if (changed !== 1) throw new LeaseLost(fence.runId);
}

/** Durable events of a run after `afterSeq`, oldest first. */
export async function eventsAfter(tx: Tx, runId: string, afterSeq: bigint, limit: number): Promise<Uint8Array[]> {
  const rows = await tx.query<{ event: Uint8Array }>(
    `SELECT event FROM agent.run_events
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`,
    [runId, afterSeq.toString(), limit],
  );
  return rows.map(({ event }) => event);
}

/** All durable events of one type, oldest first. */
export async function eventsOfType(tx: Tx, runId: string, type: string): Promise<Uint8Array[]> {
  const rows = await tx.query<{ event: Uint8Array }>(
    `SELECT event FROM agent.run_events
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND type = $2 ORDER BY seq`,
    [runId, type],
  );
  return rows.map(({ event }) => event);
}

/** Erases the runs of a session and their events. */
export async function deleteRuns(tx: Tx, sessionId: string): Promise<void> {
  await tx.execute(
    `DELETE FROM agent.run_events e USING agent.runs r
     WHERE e.tenant_id = agentmesh.current_tenant() AND r.tenant_id = e.tenant_id AND r.run_id = e.run_id
       AND r.session_id = $1`,
    [sessionId],
  );
  await tx.execute("DELETE FROM agent.runs WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1", [
    sessionId,
  ]);
}
