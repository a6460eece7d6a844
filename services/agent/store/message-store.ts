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
  /** A ModelMessage as JSON text. */
  json: string;
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
     FROM agent.messages m
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1
       AND m.position >= (SELECT min(position) FROM measured WHERE bytes <= $3)
       AND NOT coalesce((m.message->>'hidden')::boolean, false)
     ORDER BY m.position`,
    [sessionId, limits.messages, limits.bytes],
  );
}
