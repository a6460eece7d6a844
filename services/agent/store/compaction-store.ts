import type { Tx } from "#platform/postgres/database.ts";

/** A part of a session that the model sees as a summary from now on. */
export interface NewCompaction {
  /** `cmp_…` */
  compactionId: string;
  runId: string;
  sessionId: string;
  keptMessageIds: readonly string[];
  firstKeptMessageId: string;
  summaryId: string;
  /** A UserMessage as JSON text. */
  summaryJson: string;
  messages: number;
  tokensBefore: number;
  tokensAfter: number;
}

/**
 * Stores a compaction behind the messages that it speaks of. Where its first kept message is not stored nothing is written:
 * then the model goes on seeing the whole.
 */
export async function insertCompaction(tx: Tx, compaction: NewCompaction): Promise<void> {
  await tx.execute(
    `WITH compaction AS (
     INSERT INTO agent.compactions (tenant_id, session_id, compaction_id, run_id, kept_positions, first_kept_position,
       summary_id, summary, messages, tokens_before, tokens_after)
     SELECT agentmesh.current_tenant(), $1, $2, $3,
       ARRAY(SELECT position FROM agent.messages k WHERE k.tenant_id = agentmesh.current_tenant() AND k.session_id = $1
         AND k.message_id = ANY($4::text[]) AND k.position < m.position ORDER BY position),
       m.position, $6, $7, $8, $9, $10
     FROM agent.messages m
     WHERE m.tenant_id = agentmesh.current_tenant() AND m.session_id = $1 AND m.message_id = $5
     RETURNING session_id, compaction_id)
     UPDATE agent.sessions s SET compaction_id = c.compaction_id FROM compaction c
     WHERE s.tenant_id = agentmesh.current_tenant() AND s.session_id = c.session_id`,
    [
      compaction.sessionId,
      compaction.compactionId,
      compaction.runId,
      compaction.keptMessageIds,
      compaction.firstKeptMessageId,
      compaction.summaryId,
      compaction.summaryJson,
      compaction.messages,
      compaction.tokensBefore,
      compaction.tokensAfter,
    ],
  );
}
