import { type AuditEvent, auditInsert, auditRows } from "#platform/postgres/audit.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { jsonText } from "#platform/postgres/json-text.ts";
import { outboxTopic } from "#platform/postgres/outbox.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { LeaseLost } from "../errors.ts";
import { inputsTaken } from "./input-store.ts";
import { type LedgerEntry, ledgerInsert, ledgerRows } from "./ledger-store.ts";
import type { NewMessage } from "./message-store.ts";
import { bury, leaveQueue, QUEUE_TOPIC, wakeNext } from "./queue-parts.ts";
import { draftInsert, draftMove, type StepDraft } from "./resume-store.ts";
import {
  type Awaited,
  type Fence,
  RUN_COLUMNS,
  type RunRow,
  type RunRowAsText,
  runRow,
  SEQ_BLOCK,
} from "./run-store.ts";

export interface NewRun {
  runId: string;
  endUserId: string;
  agentId: string;
  agentVersion: number;
  principal: Principal;
  owner: string;
  ownerAddress: string;
  leaseMs: number;
  /** How long it may live; without one only while somebody works on it. */
  timeLimitMs?: number | undefined;
}

export interface NewEvent {
  seq: bigint;
  type: string;
  event: Uint8Array;
}

/** A run at its begin, and all that begins with it. */
export interface RunBegin {
  run: NewRun;
  /** The session that it works in: a new one, or one whose row the transaction has locked. */
  session:
    | { created: { sessionId: string; agentId: string } }
    | { continued: { session_id: string; message_count: number } };
  /** The run's row is there and waits, and the transaction has locked its place in the queue. */
  queued?: "background" | "turn" | undefined;
  messages: readonly NewMessage[];
  events: readonly NewEvent[];
  /** The step that is open from the beginning; 0 when none is. */
  openStep: number;
  audited: { call: Call; events: readonly AuditEvent[] };
  /** Days that the session is kept after this turn, and the run's events; 0: for good. */
  kept?: { sessionDays: number; eventDays: number };
  /** What it is begun with, for whoever takes it up; `shared` is left out where it is known to be stored. */
  plan?: { planId: string; shared: Uint8Array | undefined; own: string };
  /** The run that it continues, and whose draft it goes on with; in a session that exists. */
  retryOf?: string;
}

/** How a run ended. */
export interface RunEndRow {
  state: number;
  outcome: number;
  error: Uint8Array | null;
  usage: Uint8Array;
  response: string;
}

/** What an owner writes at a time. */
export interface RunWrite {
  /** Without any, `lastSeq` stays as it is. */
  events: readonly NewEvent[];
  /** seq of the newest durable event after this write. */
  lastSeq: bigint;
  /** The open step, now that its model has asked for tools. */
  draft?: StepDraft | undefined;
  /** True: the step that had a draft is completed. */
  dropsDraft?: boolean | undefined;
  /** The step that is open after them; undefined: as before. */
  openStep?: number | undefined;
  /** What they add to the session. */
  messages?: readonly NewMessage[] | undefined;
  /** Calls of models that are booked with them. */
  calls?: readonly LedgerEntry[] | undefined;
  /** Ids of messages that were sent to the run and are among `messages`. */
  takes?: readonly string[] | undefined;
  /** The end of the run, which frees its session; refused while messages that were sent to it wait to be taken in. */
  end?: RunEndWrite | undefined;
  /** What the run waits for from now on; nobody owns it then. Not together with an end. */
  suspend?: readonly Awaited[] | undefined;
}

/** The end of a run, and what hangs on it. */
export interface RunEndWrite {
  row: RunEndRow;
  call: Call;
  audited: AuditEvent;
  /** Told on the bus. */
  announced?: { eventId: string; subject: string; payload: Uint8Array } | undefined;
  /** True: it came from the queue, and what it was to do need not be known any more. */
  leavesQueue?: boolean | undefined;
  /** It came from the queue, and is given up: what it was to do becomes a dead letter. */
  dead?: { subject: string; reason: string; message: string } | undefined;
}

// One statement for everything that belongs together: a round trip costs more than all the rows that it brings.

/** At the end of a day, so that the turns of one day do not move it. */
const SESSION_EXPIRES = "date_trunc('day', clock_timestamp()) + ($25::int + 1) * interval '1 day'";
const EVENTS_EXPIRE = "clock_timestamp() + $26::int * interval '1 day'";

const CREATE_SESSION = `INSERT INTO agent.sessions (tenant_id, session_id, active_run_id, message_count, end_user_id, agent_id, title, labels,
      expire_time)
    VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $27, '', '{}', ${SESSION_EXPIRES})`;
const OCCUPY_SESSION = `UPDATE agent.sessions SET active_run_id = $2, message_count = $3, version = version + 1,
      update_time = clock_timestamp(), expire_time = ${SESSION_EXPIRES}
    WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1`;

const insertRun = (
  column = "",
  value = "",
) => `INSERT INTO agent.runs (tenant_id, session_id, run_id, end_user_id, agent_id, agent_version, state, principal,
      owner, owner_address, lease_expires, seq_reserved, last_seq, open_step, plan_id, begun_with, deadline,
      expire_time${column})
    VALUES (agentmesh.current_tenant(), $1, $2, $4, $5, $6, 2, $7, $8, $9, clock_timestamp() + $10 * interval '1 ms',
      $11, $12, $13, $21, $23, clock_timestamp() + $24::float8 * interval '1 ms', ${EVENTS_EXPIRE}${value})
    RETURNING ${RUN_COLUMNS}`;
/** A queued run becomes what it would be had it begun now; its time runs since it was queued. */
const ACTIVATE_RUN = `UPDATE agent.runs SET agent_id = $5, agent_version = $6, state = 2, principal = $7, owner = $8,
      owner_address = $9, lease_expires = clock_timestamp() + $10 * interval '1 ms', seq_reserved = $11, last_seq = $12,
      open_step = $13, plan_id = $21, begun_with = $23, update_time = clock_timestamp(),
      deadline = coalesce(deadline, clock_timestamp() + $24::float8 * interval '1 ms'), expire_time = ${EVENTS_EXPIRE}
    WHERE tenant_id = agentmesh.current_tenant() AND run_id = $2 AND session_id = $1 AND end_user_id = $4 AND state = 1
    RETURNING ${RUN_COLUMNS}`;
const LEAVE_QUEUE = `DELETE FROM agent.queued_runs WHERE tenant_id = agentmesh.current_tenant() AND run_id = $2`;
/** What it was to do is kept until it has ended, for whoever must do it again. */
const KEEP_INPUT = `UPDATE agent.queued_runs SET due_at = NULL WHERE tenant_id = agentmesh.current_tenant() AND run_id = $2`;

const beginSql = (session: string, run: string, more?: string) => `WITH session AS (
    ${session}
  ), run AS (
    ${run}
  )${more === undefined ? "" : `, more AS (${more})`}, plan AS (
    INSERT INTO agent.plans (tenant_id, plan_id, plan)
    SELECT agentmesh.current_tenant(), $21, $22 WHERE $22::bytea IS NOT NULL
    ON CONFLICT (tenant_id, plan_id) DO UPDATE SET create_time = excluded.create_time
  ), events AS (
    INSERT INTO agent.run_events (tenant_id, run_id, seq, type, event)
    SELECT agentmesh.current_tenant(), $2, * FROM unnest($14::bigint[], $15::text[], $16::bytea[])
  ), messages AS (
    INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
    SELECT agentmesh.current_tenant(), $1, $3::int - cardinality($17::text[]) + n, id, $2, body, bytes
    FROM unnest($17::text[], $18::jsonb[], $19::int[]) WITH ORDINALITY AS m (id, body, bytes, n)
  ), audited AS (
    ${auditInsert("agent", "$20")}
  )
  SELECT * FROM run`;

const BEGIN_IN_NEW_SESSION = beginSql(CREATE_SESSION, insertRun());
const BEGIN_IN_SESSION = beginSql(OCCUPY_SESSION, insertRun());
const BEGIN_QUEUED = {
  background: beginSql(OCCUPY_SESSION, ACTIVATE_RUN, KEEP_INPUT),
  turn: beginSql(OCCUPY_SESSION, ACTIVATE_RUN, LEAVE_QUEUE),
};
const RETRY = beginSql(OCCUPY_SESSION, insertRun(", retry_of", ", $27"), draftMove("$27", "$2"));

/**
 * Writes a run that is leased to its owner (state RUNNING), in a new session or in one that the transaction has locked,
 * with its first messages, events and audit rows. Ends the transaction.
 */
export async function beginRun(tx: Tx, begin: RunBegin): Promise<RunRow> {
  const { run, session, messages, events, openStep, audited, plan, queued, kept, retryOf } = begin;
  const created = "created" in session ? session.created : undefined;
  const earlier = "created" in session ? 0 : session.continued.message_count;
  const params = [
    created?.sessionId ?? ("continued" in session ? session.continued.session_id : undefined),
    run.runId,
    earlier + messages.length,
    run.endUserId,
    run.agentId,
    run.agentVersion,
    JSON.stringify(run.principal),
    run.owner,
    run.ownerAddress,
    run.leaseMs,
    SEQ_BLOCK.toString(),
    (events.at(-1)?.seq ?? 0n).toString(),
    openStep,
    ...eventColumns(events),
    ...messageColumns(messages),
    auditRows(audited.call, audited.events),
    plan?.planId ?? null,
    plan?.shared ?? null,
    plan?.own ?? null,
    run.timeLimitMs ?? null,
    kept?.sessionDays || null,
    kept?.eventDays || null,
  ];
  const known = queued === undefined ? BEGIN_IN_SESSION : BEGIN_QUEUED[queued];
  const [sql, last] =
    created !== undefined
      ? [BEGIN_IN_NEW_SESSION, [created.agentId]]
      : retryOf === undefined
        ? [known, []]
        : [RETRY, [retryOf]];
  const [row] = await tx.finish<RunRowAsText>(sql, [...params, ...last]);
  return runRow(row as RunRowAsText);
}

interface Parts {
  messages: boolean;
  end: boolean;
  suspend: boolean;
  announced: boolean;
  queue: "not in it" | "left" | "dead";
  draft: "kept" | "written" | "dropped";
  takes: boolean;
}

/**
 * $1 run, $2 owner, $3 epoch, $4 last seq, $5 open step, $6-$8 events, $9-$11 messages, $12 ledger, and what its parts take in
 * the order of {@link writeRun}.
 */
function writeSql({ messages, end, suspend, announced, queue, draft, takes }: Parts): string {
  let taken = 12;
  const param = (): `$${number}` => `$${++taken}`;
  const ended = end
    ? `, state = ${param()}, outcome = ${param()}, error = ${param()}, usage = ${param()}, response = ${param()},
      end_time = clock_timestamp()`
    : suspend
      ? `, state = 3, owner = '', owner_address = '', awaiting = ${param()}`
      : "";
  // Another run's hold on the session is left alone; its own goes to the next one in the queue.
  const freed = end
    ? `, active_run_id = CASE WHEN s.active_run_id = $1 THEN (SELECT run_id FROM next) ELSE s.active_run_id END,
      version = s.version + CASE WHEN s.active_run_id = $1 THEN 1 ELSE 0 END`
    : "";
  // Everything else hangs on the run's row: without the fence nothing is written.
  const next = end ? `, ${wakeNext("next")}` : "";
  const session = `${next}, session AS (
    UPDATE agent.sessions s SET message_count = s.message_count + cardinality($9::text[]), update_time = clock_timestamp()${freed}
    WHERE s.tenant_id = agentmesh.current_tenant() AND s.session_id = (SELECT session_id FROM run)
    RETURNING s.session_id, s.message_count
  ), messages AS (
    INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
    SELECT agentmesh.current_tenant(), session_id, message_count - cardinality($9::text[]) + n, id, $1, body, bytes
    FROM session, unnest($9::text[], $10::jsonb[], $11::int[]) WITH ORDINALITY AS m (id, body, bytes, n)
  ), ledger AS (
    ${ledgerInsert("run", "$12")}
  )`;
  const audited = end
    ? `, audited AS (
    ${auditInsert("agent", param(), "run")}
  )`
    : "";
  const announcement = announced
    ? `, announced AS (
    INSERT INTO agent.outbox (tenant_id, event_id, subject, payload, headers)
    SELECT agentmesh.current_tenant(), ${param()}, ${param()}, ${param()}, '{}' FROM run
  )`
    : "";
  const queued = { "not in it": "", left: `, ${leaveQueue()}`, dead: queue === "dead" ? `, ${bury(param)}` : "" };
  const drafts = {
    kept: "",
    written: `, draft AS (
    ${draftInsert("run", draft === "written" ? param() : "$0")}
  )`,
    dropped: `, draft AS (
    DELETE FROM agent.step_drafts d USING run WHERE d.tenant_id = agentmesh.current_tenant() AND d.run_id = run.run_id
  )`,
  };
  const inputIds = takes ? param() : undefined;
  const count = inputIds === undefined ? "0" : `cardinality(${inputIds}::text[])`;
  const takesIn = takes ? `, inputs_pending = inputs_pending - ${count}` : "";
  // What was sent to the run before must be in its session by then, or with it.
  const nothingLeft = end ? ` AND inputs_pending = ${count}` : "";
  const inputs =
    inputIds === undefined
      ? ""
      : `, inputs AS (
    ${inputsTaken("run", inputIds)}
  )`;
  return `WITH run AS (
    UPDATE agent.runs SET last_seq = $4, open_step = coalesce($5, open_step), update_time = clock_timestamp()${takesIn}${ended}
    WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND owner = $2 AND epoch = $3 AND state + 0 IN (1, 2)
      AND seq_reserved >= $4${nothingLeft}
    RETURNING run_id, session_id, agent_id, end_user_id, inputs_pending
  ), events AS (
    INSERT INTO agent.run_events (tenant_id, run_id, seq, type, event)
    SELECT agentmesh.current_tenant(), $1, e.* FROM run, unnest($6::bigint[], $7::text[], $8::bytea[]) AS e
  )${messages || end ? session : ""}${audited}${announcement}${queued[queue]}${drafts[draft]}${inputs}
  SELECT inputs_pending${end ? ", (SELECT run_id FROM next) AS next" : ""} FROM run`;
}

/** Each statement is made once, so that it is prepared once. */
const statements = new Map<string, string>();

function statementFor(parts: Parts): string {
  const key = JSON.stringify(parts);
  const sql = statements.get(key) ?? writeSql(parts);
  statements.set(key, sql);
  return sql;
}

/**
 * Appends durable events and what belongs to them under the fence. Throws LeaseLost when another process owns the run or
 * it has ended, and for an end also while something that was sent to the run waits; then nothing is written. `last`: it is
 * the transaction's last statement, and ends it. Returns how many messages wait to be taken in.
 */
export async function writeRun(tx: Tx, fence: Fence, write: RunWrite, last: "last" | "more"): Promise<number> {
  const { events, lastSeq, openStep, messages = [], calls = [], end, suspend, draft, dropsDraft, takes = [] } = write;
  const params: unknown[] = [
    fence.runId,
    fence.owner,
    fence.epoch,
    lastSeq.toString(),
    openStep,
    ...eventColumns(events),
  ];
  const changes = end !== undefined || suspend !== undefined;
  const withMessages = changes || draft !== undefined || messages.length > 0 || calls.length > 0;
  if (withMessages) params.push(...messageColumns(messages), ledgerRows(calls));
  if (end !== undefined) {
    const { state, outcome, error, usage, response } = end.row;
    params.push(state, outcome, error, usage, response, auditRows(end.call, [end.audited]));
  }
  if (suspend !== undefined) params.push(jsonText(suspend));
  if (end?.announced !== undefined) params.push(end.announced.eventId, end.announced.subject, end.announced.payload);
  if (end?.dead !== undefined) params.push(end.dead.subject, end.dead.reason, end.dead.message);
  if (draft !== undefined) params.push(jsonText(draft));
  if (takes.length > 0) params.push(takes);
  const sql = statementFor({
    messages: withMessages,
    end: end !== undefined,
    suspend: suspend !== undefined,
    announced: end?.announced !== undefined,
    queue: end?.dead !== undefined ? "dead" : end?.leavesQueue === true ? "left" : "not in it",
    draft: draft !== undefined ? "written" : dropsDraft === true ? "dropped" : "kept",
    takes: takes.length > 0,
  });
  type Held = { inputs_pending: number; next?: string | null };
  const [held] = await (last === "last" ? tx.finish<Held>(sql, params) : tx.query<Held>(sql, params));
  if (held === undefined) throw new LeaseLost(fence.runId);
  if (end?.announced !== undefined) tx.announce(outboxTopic("agent"));
  if (typeof held.next === "string") tx.announce(QUEUE_TOPIC);
  return held.inputs_pending;
}

function eventColumns(events: readonly NewEvent[]): unknown[] {
  return [events.map(({ seq }) => seq.toString()), events.map(({ type }) => type), events.map(({ event }) => event)];
}

function messageColumns(messages: readonly NewMessage[]): unknown[] {
  return [
    messages.map(({ messageId }) => messageId),
    messages.map(({ json }) => json),
    messages.map(({ json }) => Buffer.byteLength(json)),
  ];
}
