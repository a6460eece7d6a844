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

/** The newest messages of a session, and how many older ones were left out. */
export interface History {
  messages: ModelMessage[];
  omitted: number;
}

/** Appends messages to a session in order. The caller holds the session's row or the run's lease. */
export async function appendMessages(
  tx: Tx,
  sessionId: string,
  runId: string,
  messages: readonly NewMessage[],
): Promise<void> {
  if (messages.length === 0) return;
  // Counting and numbering in one statement: the session row is locked by the update, so no two writers get one number.
  await tx.query(
    `WITH counted AS (
       UPDATE agent.sessions SET message_count = message_count + $3, update_time = clock_timestamp()
       WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 RETURNING message_count
     )
     INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
     SELECT agentmesh.current_tenant(), $1, message_count - $3 + n, id, $2, body, bytes
     FROM counted, unnest($4::text[], $5::jsonb[], $6::int[]) WITH ORDINALITY AS m (id, body, bytes, n)`,
    [
      sessionId,
      runId,
      messages.length,
      messages.map(({ messageId }) => messageId),
      messages.map(({ json }) => json),
      messages.map(({ json }) => Buffer.byteLength(json)),
    ],
  );
}

/** The newest messages of a session within the limits, oldest first; the first one is a user's. What a model is shown. */
export async function sessionHistory(
  tx: Tx,
  session: { session_id: string; message_count: number },
  limits: { messages: number; bytes: number } = HISTORY_LIMITS,
): Promise<History> {
  const rows = await tx.query<{ message: ModelMessage }>(
    `WITH newest AS (
       SELECT position, size FROM agent.messages
       WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 ORDER BY position DESC LIMIT $2
     ), measured AS (
       SELECT position, sum(size) OVER (ORDER BY position DESC) AS bytes FROM newest
     )
     SELECT m.message FROM agent.messages m JOIN measured USING (position)
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND measured.bytes <= $3 ORDER BY m.position`,
    [session.session_id, limits.messages, limits.bytes],
  );
  const total = session.message_count;
  if (rows.length === total) return { messages: rows.map(({ message }) => message), omitted: 0 };
  // A history that begins with an answer, or with results of calls that it does not hold, makes no sense to a model.
  const begin = rows.findIndex(({ message }) => message.role === "user" && message.hidden !== true);
  const kept = begin < 0 ? [] : rows.slice(begin);
  return { messages: kept.map(({ message }) => message), omitted: total - kept.length };
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

/** Erases the messages of a session. */
export async function deleteMessages(tx: Tx, sessionId: string): Promise<void> {
  await tx.execute("DELETE FROM agent.messages WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1", [
    sessionId,
  ]);
}
