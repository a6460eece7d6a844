import type { Tx } from "#platform/postgres/database.ts";
import type { ModelMessage } from "../llm/chat-model.ts";

/** Most of a session's history that a run takes along; what is older stays stored and readable. */
export const HISTORY_LIMITS = { messages: 1_000, bytes: 8 * 1024 * 1024 } as const;

/** A row of agent.messages. */
export interface MessageRow {
  position: number;
  message_id: string;
  run_id: string;
  message: ModelMessage;
  create_time: Date;
}

export interface NewMessage {
  messageId: string;
  /** A ModelMessage as JSON text. */
  json: string;
}

/** What a model is shown of a session, and how many messages were left out for their number or size. */
export interface History {
  messages: ModelMessage[];
  omitted: number;
}

interface HistoryRow {
  /** 0: kept in front of a summary, 1: the summary, 2: the rest. */
  part: 0 | 1 | 2;
  message_id: string;
  message: ModelMessage;
  /** Position of the first message behind the summary; 1 where there is none. */
  first: number;
}

/**
 * What a model is shown of a session, oldest first: where it was compacted the messages that were kept, the newest summary
 * and what is behind it, else everything; of that the newest messages within the limits. The first one is a user's.
 */
export async function sessionHistory(
  tx: Tx,
  session: { session_id: string; message_count: number },
  limits: { messages: number; bytes: number } = HISTORY_LIMITS,
): Promise<History> {
  const rows = await tx.query<HistoryRow>(
    `WITH compaction AS (
       SELECT kept_positions, first_kept_position, summary_id, summary FROM agent.compactions
       WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 ORDER BY compaction_id DESC LIMIT 1
     ), start AS (
       SELECT coalesce((SELECT first_kept_position FROM compaction), 1) AS first
     ), newest AS (
       SELECT position, size FROM agent.messages, start
       WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND position >= start.first
       ORDER BY position DESC LIMIT $2
     ), measured AS (
       SELECT position, sum(size) OVER (ORDER BY position DESC) AS bytes FROM newest
     )
     SELECT 2 AS part, m.position, m.message_id, m.message, start.first
     FROM start, agent.messages m JOIN measured USING (position)
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND measured.bytes <= $3
     UNION ALL
     SELECT 1, 0, summary_id, summary, first_kept_position FROM compaction
     UNION ALL
     SELECT 0, m.position, m.message_id, m.message, first_kept_position
     FROM compaction, agent.messages m
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND m.position = ANY (kept_positions)
     ORDER BY part, position`,
    [session.session_id, limits.messages, limits.bytes],
  );
  const front = rows.filter(({ part }) => part < 2);
  const rest = rows.filter(({ part }) => part === 2);
  const total = session.message_count - (front[0]?.first ?? 1) + 1;
  if (rest.length === total) return { messages: rows.map(toMessage), omitted: 0 };
  // A history that begins with an answer, or with results of calls that it does not hold, makes no sense to a model.
  const begin = rest.findIndex(({ message }) => message.role === "user" && message.hidden !== true);
  const kept = begin < 0 ? [] : rest.slice(begin);
  return { messages: [...front, ...kept].map(toMessage), omitted: total - kept.length };
}

function toMessage({ message_id, message }: HistoryRow): ModelMessage {
  return { ...message, id: message_id };
}

/** A page of messages from a position on, oldest first; hidden ones are left out. */
export async function listMessages(
  tx: Tx,
  sessionId: string,
  page: { limit: number; from: number },
): Promise<MessageRow[]> {
  return tx.query<MessageRow>(
    `SELECT position, message_id, run_id, message, create_time FROM agent.messages
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND position >= $2
       AND NOT coalesce((message->>'hidden')::boolean, false)
     ORDER BY position LIMIT $3`,
    [sessionId, page.from, page.limit],
  );
}

/** The newest messages within the limits, oldest first; hidden ones are left out. */
export async function newestMessages(
  tx: Tx,
  sessionId: string,
  limits: { messages: number; bytes: number },
): Promise<MessageRow[]> {
  return tx.query<MessageRow>(
    `WITH newest AS (
       SELECT position, size FROM agent.messages
       WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1
         AND NOT coalesce((message->>'hidden')::boolean, false)
       ORDER BY position DESC LIMIT $2
     ), measured AS (
       SELECT position, sum(size) OVER (ORDER BY position DESC) AS bytes FROM newest
     )
     SELECT m.position, m.message_id, m.run_id, m.message, m.create_time
     FROM agent.messages m JOIN measured USING (position)
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND measured.bytes <= $3
     ORDER BY m.position`,
    [sessionId, limits.messages, limits.bytes],
  );
}
