import type { AwaitedKind } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { RunOutcome, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import type { Cursor } from "../domain/cursor.ts";
import { inLivingSession } from "./session-store.ts";

/** How many event numbers an owner gets at a time. */
export const SEQ_BLOCK = 1_000_000n;

/** Something that a suspended run waits for. */
export interface Awaited {
  call_id: string;
  tool: string;
  kind: AwaitedKind;
  /** `apr_…`; empty where no approval is awaited. */
  approval_id: string;
}

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
  /** Events up to this number are pruned; 0: none is. */
  pruned_seq: bigint;
  open_step: number;
  /** Times that a process has taken the run up. */
  attempt: number;
  /** Null: it is not suspended. */
  awaiting: Awaited[] | null;
  /** Nobody waits for it: its end is announced on the bus. */
  background: boolean;
  /** When it ends whatever it has come to. */
  deadline: Date | null;
  /** The failed run that this one continues or does again. */
  retry_of: string | null;
  /** Messages that were sent to it and are not in its session yet. */
  inputs_pending: number;
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

export interface RunFilter {
  endUserId: string | undefined;
  sessionId: string | undefined;
  agentId: string | undefined;
  state: number | undefined;
  createdAfter: Date | undefined;
  createdBefore: Date | undefined;
}

/** What a RunRow is made of; see runRow. */
export const RUN_COLUMNS = `run_id, session_id, end_user_id, agent_id, agent_version, state, outcome, error, usage, response, principal,
  owner, owner_address, epoch, seq_reserved::text, last_seq::text, pruned_seq::text, open_step, attempt, awaiting,
  background, deadline, retry_of, inputs_pending,
  create_time, update_time, end_time,
  create_time::text AS sort_time`;

/** A row as it is read: int8 columns as text, for they may be beyond what a number holds. */
export type RunRowAsText = Omit<RunRow, BigColumn> & Record<BigColumn, string>;
type BigColumn = "seq_reserved" | "last_seq" | "pruned_seq";

export function runRow(raw: RunRowAsText): RunRow {
  const { seq_reserved, last_seq, pruned_seq } = raw;
  return { ...raw, seq_reserved: BigInt(seq_reserved), last_seq: BigInt(last_seq), pruned_seq: BigInt(pruned_seq) };
}

/** A run of a session that is not deleted; `lock` waits for whoever writes to it and keeps others from doing so until the transaction ends. */
export async function runById(tx: Tx, runId: string, lock = false): Promise<RunRow | undefined> {
  const raw = await tx.one<RunRowAsText>(
    `SELECT ${RUN_COLUMNS} FROM agent.runs
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND ${inLivingSession("runs")}${lock ? " FOR UPDATE" : ""}`,
    [runId],
  );
  return raw === undefined ? undefined : runRow(raw);
}

export async function listRuns(
  tx: Tx,
  filter: RunFilter,
  page: { limit: number; after: Cursor | undefined },
): Promise<RunRow[]> {
  const rows = await tx.query<RunRowAsText>(
    `SELECT ${RUN_COLUMNS} FROM agent.runs
     WHERE tenant_id = agentmesh.current_tenant()
       AND ($1::text IS NULL OR end_user_id = $1) AND ($2::text IS NULL OR session_id = $2)
       AND ($3::text IS NULL OR agent_id = $3) AND ($4::smallint IS NULL OR state = $4)
       AND ($5::timestamptz IS NULL OR create_time >= $5) AND ($6::timestamptz IS NULL OR create_time < $6)
       AND ($7::timestamptz IS NULL OR (create_time, run_id) < ($7, $8)) AND ${inLivingSession("runs")}
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

/** The newest run of a session. */
export async function newestRunOf(tx: Tx, sessionId: string): Promise<string | undefined> {
  const newest = await tx.one<{ run_id: string }>(
    `SELECT run_id FROM agent.runs WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1
     ORDER BY create_time DESC, run_id DESC LIMIT 1`,
    [sessionId],
  );
  return newest?.run_id;
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

/** Corrects the usage of a run that is over. */
export async function setUsage(tx: Tx, runId: string, usage: Uint8Array): Promise<void> {
  await tx.execute("UPDATE agent.runs SET usage = $2 WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1", [
    runId,
    usage,
  ]);
}

/** Ids of a session's runs that have not ended, oldest first. */
export async function unfinishedRuns(tx: Tx, sessionId: string): Promise<string[]> {
  const rows = await tx.query<{ run_id: string }>(
    `SELECT run_id FROM agent.runs
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND state IN (1, 2, 3) ORDER BY run_id`,
    [sessionId],
  );
  return rows.map(({ run_id }) => run_id);
}
