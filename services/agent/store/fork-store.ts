import type { Tx } from "#platform/postgres/database.ts";
import { SESSION_COLUMNS, type SessionRow } from "./session-store.ts";

/** Most of a session that is copied at a time. */
export const FORK_LIMITS = { messages: 10_000, bytes: 64 * 1024 * 1024 } as const;

export interface NewFork {
  sourceId: string;
  /** The last message to be copied, with the results of the calls that it makes; empty: the newest. */
  messageId: string;
  sessionId: string;
  /** Empty: the source's. */
  title: string;
}

/** The fork; or why there is none. */
export type Forked =
  | { kind: "forked"; session: SessionRow }
  | { kind: "no_message" }
  /** There is more of it than may be copied. */
  | { kind: "too_large"; messages: number; bytes: number };

const FORK = `WITH source AS (
    SELECT session_id, end_user_id, agent_id, title, labels, expire_time FROM agent.sessions
    WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1
  ), named AS MATERIALIZED (
    -- Once, and not once for each message.
    SELECT position FROM agent.messages
    WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1
      AND ($2 = '' OR (message_id = $2 AND NOT coalesce((message->>'hidden')::boolean, false)))
    ORDER BY position DESC LIMIT 1
  ), cut AS (
    -- Calls without their results are no conversation that can be gone on with; they are stored together.
    SELECT m.position, m.message_id FROM agent.messages m, named
    WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1
      AND (m.position = named.position OR (m.position = named.position + 1 AND m.message->>'role' = 'tool'))
    ORDER BY m.position DESC LIMIT 1
  ), measured AS (
    SELECT count(*)::int AS messages, coalesce(sum(m.size), 0)::float8 AS bytes FROM cut, agent.messages m
    WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND m.position <= cut.position
  ), applying AS (
    SELECT c.* FROM cut, agent.compactions c
    WHERE c.tenant_id = agentmesh.current_tenant() AND c.session_id = $1 AND c.first_kept_position <= cut.position
  ), forked AS (
    INSERT INTO agent.sessions (tenant_id, session_id, end_user_id, agent_id, title, labels, expire_time,
      message_count, compaction_id, forked_from_session_id, forked_from_message_id)
    SELECT agentmesh.current_tenant(), $3, end_user_id, agent_id, CASE WHEN $4 = '' THEN title ELSE $4 END, labels, expire_time,
      coalesce((SELECT position FROM cut), 0), (SELECT max(compaction_id) FROM applying), $1, (SELECT message_id FROM cut)
    FROM source, measured
    WHERE measured.messages <= $5 AND measured.bytes <= $6 AND ($2 = '' OR EXISTS (SELECT FROM cut))
    RETURNING ${SESSION_COLUMNS}
  ), copied AS (
    INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size, create_time)
    SELECT m.tenant_id, forked.session_id, m.position, m.message_id, m.run_id, m.message, m.size, m.create_time
    FROM forked, cut, agent.messages m
    WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND m.position <= cut.position
  ), compacted AS (
    INSERT INTO agent.compactions (tenant_id, session_id, compaction_id, run_id, kept_positions, first_kept_position,
      summary_id, summary, messages, tokens_before, tokens_after, create_time)
    SELECT c.tenant_id, forked.session_id, c.compaction_id, c.run_id, c.kept_positions, c.first_kept_position,
      c.summary_id, c.summary, c.messages, c.tokens_before, c.tokens_after, c.create_time
    FROM forked, applying c
  )
  SELECT measured.messages AS copied, measured.bytes, EXISTS (SELECT FROM cut) AS found, forked.*
  FROM measured LEFT JOIN forked ON true`;

type ForkRow = { copied: number; bytes: number; found: boolean } & { [K in keyof SessionRow]: SessionRow[K] | null };

/**
 * Copies a session up to a message, in one statement: one moment of it, whatever is written to it meanwhile. Messages keep
 * their ids, positions and times; a compaction is copied where what is behind its summary is. Runs are not copied.
 */
export async function forkSession(tx: Tx, { sourceId, messageId, sessionId, title }: NewFork): Promise<Forked> {
  const { messages, bytes } = FORK_LIMITS;
  const row = await tx.one<ForkRow>(FORK, [sourceId, messageId, sessionId, title, messages, bytes]);
  if (row === undefined || (!row.found && messageId !== "")) return { kind: "no_message" };
  const { copied, bytes: size, found: _, ...session } = row;
  if (session.session_id === null) return { kind: "too_large", messages: copied, bytes: size };
  return { kind: "forked", session: session as SessionRow };
}
