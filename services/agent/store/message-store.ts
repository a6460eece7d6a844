import type { Tx } from "#platform/postgres/database.ts";
import type { ModelMessage } from "../llm/chat-model.ts";

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
  message: ModelMessage;
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
     INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message)
     SELECT agentmesh.current_tenant(), $1, message_count - $3 + n, id, $2, body
     FROM counted, unnest($4::text[], $5::jsonb[]) WITH ORDINALITY AS m (id, body, n)`,
    [
      sessionId,
      runId,
      messages.length,
      messages.map(({ messageId }) => messageId),
      messages.map(({ message }) => JSON.stringify(message)),
    ],
  );
}

/** All messages of a session, oldest first: what a model is shown. */
export async function sessionHistory(tx: Tx, sessionId: string): Promise<ModelMessage[]> {
  const rows = await tx.query<{ message: ModelMessage }>(
    `SELECT message FROM agent.messages WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 ORDER BY position`,
    [sessionId],
  );
  return rows.map(({ message }) => message);
}

/** A page of messages, oldest first; hidden ones are left out. */
export async function listMessages(
  tx: Tx,
  sessionId: string,
  page: { limit: number; after: number },
): Promise<MessageRow[]> {
  return tx.query<MessageRow>(
    `SELECT position, message_id, run_id, message, create_time FROM agent.messages
     WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND position > $2
       AND NOT coalesce((message->>'hidden')::boolean, false)
     ORDER BY position LIMIT $3`,
    [sessionId, page.after, page.limit],
  );
}
