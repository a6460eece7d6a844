import type { Tx } from "#platform/postgres/database.ts";
import { jsonText } from "#platform/postgres/json-text.ts";

/** One call of a model, as it is booked. */
export interface LedgerEntry {
  /** `use_…` */
  entryId: string;
  provider: string;
  model: string;
  /** agentmesh.agent.v1.ModelCallPurpose. */
  purpose: number;
  inputTokens: bigint;
  cacheReadTokens: bigint;
  cacheWriteTokens: bigint;
  outputTokens: bigint;
  /** Undefined: no price is known. */
  costNanoUsd: bigint | undefined;
  aborted: boolean;
  ownCredential: boolean;
}

/**
 * A part of a statement that books the {@link ledgerRows} of parameter `param`, once for each row of `run`, which has the
 * run's session, agent and user. An entry that is there already, from a commit whose outcome was unknown, stays as it is.
 */
export function ledgerInsert(run: string, param: `$${number}`): string {
  return `INSERT INTO agent.model_calls (tenant_id, run_id, session_id, agent_id, end_user_id, entry_id, provider, model,
      purpose, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, cost_nano_usd, aborted, own_credential)
    SELECT agentmesh.current_tenant(), ${run}.run_id, ${run}.session_id, ${run}.agent_id, ${run}.end_user_id, c.*
    FROM ${run}, json_to_recordset(${param}::json) AS c (entry_id text, provider text, model text, purpose smallint,
      input_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, output_tokens bigint, cost_nano_usd bigint,
      aborted boolean, own_credential boolean)
    ON CONFLICT DO NOTHING`;
}

/** Entries as the parameter of {@link ledgerInsert}. */
export function ledgerRows(entries: readonly LedgerEntry[]): string {
  return jsonText(
    entries.map((entry) => ({
      entry_id: entry.entryId,
      provider: entry.provider,
      model: entry.model,
      purpose: entry.purpose,
      input_tokens: String(entry.inputTokens),
      cache_read_tokens: String(entry.cacheReadTokens),
      cache_write_tokens: String(entry.cacheWriteTokens),
      output_tokens: String(entry.outputTokens),
      cost_nano_usd: entry.costNanoUsd === undefined ? null : String(entry.costNanoUsd),
      aborted: entry.aborted,
      own_credential: entry.ownCredential,
    })),
  );
}

/** Books calls of a run that may be another owner's, over or erased by now; one that is booked already stays as it is. */
export async function insertCalls(
  tx: Tx,
  run: { runId: string; sessionId: string; agentId: string; endUserId: string },
  calls: readonly LedgerEntry[],
): Promise<void> {
  await tx.execute(
    `WITH run AS (SELECT $1::text AS run_id, $2::text AS session_id, $3::text AS agent_id, $4::text AS end_user_id)
     ${ledgerInsert("run", "$5")}`,
    [run.runId, run.sessionId, run.agentId, run.endUserId, ledgerRows(calls)],
  );
}

interface Row {
  entry_id: string;
  provider: string;
  model: string;
  purpose: number;
  input_tokens: string;
  cache_read_tokens: string;
  cache_write_tokens: string;
  output_tokens: string;
  cost_nano_usd: string | null;
  aborted: boolean;
  own_credential: boolean;
}

/** What was booked for a run, oldest first. */
export async function ledgerOf(tx: Tx, runId: string): Promise<LedgerEntry[]> {
  const rows = await tx.query<Row>(
    `SELECT entry_id, provider, model, purpose, input_tokens::text, cache_read_tokens::text, cache_write_tokens::text,
       output_tokens::text, cost_nano_usd::text, aborted, own_credential
     FROM agent.model_calls WHERE tenant_id = agentmesh.current_tenant() AND run_id = $1 ORDER BY entry_id`,
    [runId],
  );
  return rows.map((row) => ({
    entryId: row.entry_id,
    provider: row.provider,
    model: row.model,
    purpose: row.purpose,
    inputTokens: BigInt(row.input_tokens),
    cacheReadTokens: BigInt(row.cache_read_tokens),
    cacheWriteTokens: BigInt(row.cache_write_tokens),
    outputTokens: BigInt(row.output_tokens),
    costNanoUsd: row.cost_nano_usd === null ? undefined : BigInt(row.cost_nano_usd),
    aborted: row.aborted,
    ownCredential: row.own_credential,
  }));
}
