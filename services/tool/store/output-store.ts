import type { Database, Tx } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { WholeOutput } from "../domain/tool-result.ts";
import { storable } from "./storable.ts";

/** Which output. */
export interface OutputKey {
  readonly sessionId: string;
  readonly callId: string;
}

/** Some bytes of a kept output. */
export interface OutputSlice {
  readonly bytes: Uint8Array;
  /** Where `bytes` begins. */
  readonly start: number;
  /** Bytes that are kept in all. */
  readonly total: number;
}

/** Whole outputs of calls, by session, user and call. */
export class OutputStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Bytes from `start` on, at most `length`; undefined when the principal has no such output. */
  async read(call: Call, { sessionId, callId }: OutputKey, start: number, length: number) {
    const { tenantId, userId } = call.principal;
    const options = { readOnly: true, signal: call.signal, deadline: call.deadline };
    return this.#database.tenant(
      tenantId,
      async (tx): Promise<OutputSlice | undefined> => {
        // One session has one user, so without a bound user there is one row; the newest is a rule for the rest.
        const [row] = await tx.query<{ bytes: Buffer; total: number }>(
          `SELECT substring(content FROM $4 FOR $5) AS bytes, octet_length(content) AS total FROM tool.tool_outputs
           WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1 AND call_id = $2
             AND ($3::text IS NULL OR end_user_id = $3)
           ORDER BY created_at DESC LIMIT 1`,
          [storable(sessionId), storable(callId), userId ?? null, start + 1, length],
        );
        return row && { bytes: row.bytes, start, total: Number(row.total) };
      },
      options,
    );
  }

  /** Removes what is older; returns how many outputs that were. */
  async deleteOlderThan(ageMs: number, signal: AbortSignal): Promise<number> {
    const sql = "DELETE FROM tool.tool_outputs WHERE created_at < clock_timestamp() - make_interval(secs => $1)";
    return this.#database.worker((tx) => tx.execute(sql, [ageMs / 1000]), { signal });
  }
}

/** Keeps an output in the transaction of its call's record; the output of a repeated call replaces the earlier one. */
export async function keepOutput(
  tx: Tx,
  { sessionId, callId, endUserId, tool }: OutputKey & { readonly endUserId: string; readonly tool: string },
  { text, bytes }: WholeOutput,
): Promise<void> {
  await tx.execute(
    `INSERT INTO tool.tool_outputs (tenant_id, session_id, end_user_id, call_id, tool, content, whole_bytes)
     VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, $6)
     ON CONFLICT (tenant_id, session_id, end_user_id, call_id) DO UPDATE SET tool = excluded.tool,
       content = excluded.content, whole_bytes = excluded.whole_bytes, created_at = clock_timestamp()`,
    [...[sessionId, endUserId, callId].map(storable), tool, Buffer.from(text), bytes],
  );
}
