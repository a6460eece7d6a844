import type { Tx } from "#platform/postgres/database.ts";
import type { ModelMessage } from "../llm/chat-model.ts";
import type { NewMessage } from "./message-store.ts";

/** Most of a session's history that a run takes along; what is older stays stored and readable. */
export const HISTORY_LIMITS = { messages: 1_000, bytes: 8 * 1024 * 1024 } as const;

export interface HistoryLimits {
  messages: number;
  /** Of the messages as JSON text. */
  bytes: number;
}

/** A message as it is stored, with its id, and its bytes as JSON text. */
export interface ContextMessage {
  id: string;
  size: number;
  message: ModelMessage;
}

/** What a model can be shown of a session, oldest first. */
export interface SessionContext {
  /** Where it was compacted: the messages that were kept in front of the newest summary, and the summary. */
  front: ContextMessage[];
  /** The newest messages within the limits: of those behind the summary, else of all. */
  rest: ContextMessage[];
  /** Position of the first message behind the summary; 1 where there is none. */
  first: number;
}

/** What a model is shown of a session, and how many messages were left out for their number or size. */
export interface History {
  messages: ModelMessage[];
  omitted: number;
}

interface Row {
  /** 0: kept in front of a summary, 1: the summary, 2: the rest. */
  part: 0 | 1 | 2;
  id: string;
  size: number;
  message: ModelMessage;
  first: number;
}

/** Reads what a model can be shown of a session. */
export async function readContext(
  tx: Tx,
  sessionId: string,
  limits: HistoryLimits = HISTORY_LIMITS,
): Promise<SessionContext> {
  const rows = await tx.query<Row>(
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
     SELECT 2 AS part, m.position, m.message_id AS id, m.size, m.message, start.first
     FROM start, agent.messages m
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1
       AND m.position >= (SELECT min(position) FROM measured WHERE bytes <= $3)
     UNION ALL
     SELECT 1, 0, summary_id, 0, summary, first_kept_position FROM compaction
     UNION ALL
     SELECT 0, m.position, m.message_id, m.size, m.message, first_kept_position
     FROM compaction, agent.messages m
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND m.position = ANY (kept_positions)
     ORDER BY part, position`,
    [sessionId, limits.messages, limits.bytes],
  );
  const of = (wanted: (part: number) => boolean) =>
    rows.filter(({ part }) => wanted(part)).map(({ id, size, message }) => ({ id, size, message }));
  return { front: of((part) => part < 2), rest: of((part) => part === 2), first: rows[0]?.first ?? 1 };
}

/** A message that is written, as it is read. */
export function contextMessage({ messageId, json }: NewMessage): ContextMessage {
  return { id: messageId, size: Buffer.byteLength(json), message: JSON.parse(json) };
}

/** The context after messages were added, as {@link readContext} would read it. */
export function extended(
  { front, rest, first }: SessionContext,
  added: readonly ContextMessage[],
  limits: HistoryLimits = HISTORY_LIMITS,
): SessionContext {
  const all = [...rest, ...added];
  let begin = all.length;
  let bytes = 0;
  while (begin > 0 && all.length - begin < limits.messages) {
    bytes += all[begin - 1]?.size ?? 0;
    if (bytes > limits.bytes) break;
    begin--;
  }
  return { front, rest: all.slice(begin), first };
}

/**
 * What a model is shown of a session with so many messages: its context, but for what a history cannot begin with. The first
 * message behind the front is a user's.
 */
export function historyOf({ front, rest, first }: SessionContext, messageCount: number): History {
  const total = messageCount - first + 1;
  if (rest.length === total) return { messages: [...front, ...rest].map(toMessage), omitted: 0 };
  // A history that begins with an answer, or with results of calls that it does not hold, makes no sense to a model.
  const begin = rest.findIndex(({ message }) => message.role === "user" && message.hidden !== true);
  const kept = begin < 0 ? [] : rest.slice(begin);
  return { messages: [...front, ...kept].map(toMessage), omitted: total - kept.length };
}

function toMessage({ id, message }: ContextMessage): ModelMessage {
  return { ...message, id };
}
