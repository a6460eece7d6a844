import type { Tx } from "#platform/postgres/database.ts";
import type { UserMessage } from "../llm/chat-model.ts";
import { RUN_COLUMNS, type RunRow, type RunRowAsText, runRow } from "./run-store.ts";

/** Messages that may wait at a time to be taken in by one run. */
export const MAX_PENDING_INPUTS = 16;

/** Something to be told of a message when it is taken in. */
export interface InputNotice {
  reason: string;
  message: string;
  facts: Record<string, string>;
}

/** A message that was sent to a live run. */
export interface RunInputRow {
  message_id: string;
  message: UserMessage;
  notices: InputNotice[];
}

/**
 * Stores a message for a run that has begun and not ended, under the lock of its row: whoever writes the run's end behind it
 * finds that it waits. Undefined when the run is not active, or has as many waiting as it may have; then nothing is stored.
 */
export async function insertInput(
  tx: Tx,
  runId: string,
  { message_id, message, notices }: RunInputRow,
): Promise<RunRow | undefined> {
  const raw = await tx.one<RunRowAsText>(
    `WITH run AS (
       UPDATE agent.runs SET inputs_pending = inputs_pending + 1, update_time = clock_timestamp()
       WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 AND state IN (2, 3) AND inputs_pending < $5
       RETURNING ${RUN_COLUMNS}
     ), input AS (
       INSERT INTO agent.run_inputs (tenant_id, run_id, message_id, message, notices)
       SELECT agentmesh.current_tenant(), run_id, $2, $3::jsonb, $4::jsonb FROM run
     )
     SELECT * FROM run`,
    [runId, message_id, JSON.stringify(message), JSON.stringify(notices), MAX_PENDING_INPUTS],
  );
  return raw === undefined ? undefined : runRow(raw);
}

/** What waits to be taken in by a run, in the order in which it came. */
export async function pendingInputs(tx: Tx, runId: string): Promise<RunInputRow[]> {
  return tx.query<RunInputRow>(
    `SELECT message_id, message, notices FROM agent.run_inputs
     WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 ORDER BY input_number`,
    [runId],
  );
}

/** A part of a statement that removes the inputs with the ids of parameter `param`, for the row of `run`. */
export function inputsTaken(run: string, param: `$${number}`): string {
  return `DELETE FROM agent.run_inputs i USING ${run}
    WHERE i.tenant_id = agentmesh.current_tenant() AND i.run_id = ${run}.run_id AND i.message_id = ANY (${param}::text[])`;
}
