import type { Database, Tx } from "#platform/postgres/database.ts";

/** Rows that one statement deletes at most; a session that has more takes more transactions. */
export const ERASURE_ROWS = 1_000;

export interface ErasedSession {
  readonly tenantId: string;
  readonly sessionId: string;
}

/** Rows of a table that belong to session $1, at most $2 of them. */
const ofSession = (table: string, more = "") => `SELECT ctid FROM tool.${table}
  WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1${more} LIMIT $2`;

/** What is deleted of a session. Answers to changes of its list are found by the calls that made them: first, so. */
const DELETED = [
  `DELETE FROM tool.idempotency_keys WHERE ctid = ANY (ARRAY(
     SELECT k.ctid FROM tool.tool_calls c
     JOIN tool.idempotency_keys k ON k.tenant_id = c.tenant_id AND k.request_id = c.run_id || '/' || c.call_id
     WHERE c.tenant_id = agentmesh.current_tenant() AND c.session_id = $1 LIMIT $2))`,
  `DELETE FROM tool.session_todos WHERE ctid = ANY (ARRAY(${ofSession("session_todos")}))`,
  `DELETE FROM tool.tool_outputs WHERE ctid = ANY (ARRAY(${ofSession("tool_outputs")}))`,
  `DELETE FROM tool.tool_journal WHERE ctid = ANY (ARRAY(${ofSession("tool_journal")}))`,
] as const;

/** What stays of it, without what was said: calls are counted, orders and transfers are the user's. */
const EMPTIED = [
  `UPDATE tool.tool_calls SET arguments = 'null' WHERE ctid = ANY (ARRAY(
     ${ofSession("tool_calls", " AND arguments <> 'null'")}))`,
  `UPDATE tool.demo_orders SET session_id = '' WHERE ctid = ANY (ARRAY(${ofSession("demo_orders")}))`,
  `UPDATE tool.demo_transfers SET session_id = '', note = '' WHERE ctid = ANY (ARRAY(${ofSession("demo_transfers")}))`,
] as const;

/** What belongs to sessions that are erased elsewhere. */
export class ErasureStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Erases what there is of a session and remembers that it did; repeated, it erases what has come since. */
  async erase({ tenantId, sessionId }: ErasedSession, signal: AbortSignal): Promise<void> {
    const remember = `INSERT INTO tool.erased_sessions (tenant_id, session_id) VALUES (agentmesh.current_tenant(), $1)
      ON CONFLICT DO NOTHING`;
    // First, for should this process die in the middle the sweeper goes on.
    await this.#database.tenant(tenantId, (tx) => tx.execute(remember, [sessionId]), { signal });
    await this.#eraseAll(tenantId, sessionId, signal);
  }

  /**
   * Erases once more what was erased longer than `ageMs` ago, for calls that were under way then, and forgets that it was.
   * Returns how many sessions that were.
   */
  async deleteOlderThan(ageMs: number, signal: AbortSignal): Promise<number> {
    const due = await this.#database.worker(
      (tx) =>
        tx.query<ErasedSession>(
          `SELECT tenant_id AS "tenantId", session_id AS "sessionId" FROM tool.erased_sessions
           WHERE erased_at < clock_timestamp() - make_interval(secs => $1) ORDER BY erased_at LIMIT 10000`,
          [ageMs / 1000],
        ),
      { signal, readOnly: true },
    );
    const forget = "DELETE FROM tool.erased_sessions WHERE tenant_id = agentmesh.current_tenant() AND session_id = $1";
    for (const { tenantId, sessionId } of due) {
      await this.#eraseAll(tenantId, sessionId, signal);
      await this.#database.tenant(tenantId, (tx) => tx.execute(forget, [sessionId]), { signal });
    }
    return due.length;
  }

  async #eraseAll(tenantId: string, sessionId: string, signal: AbortSignal): Promise<void> {
    const some = (tx: Tx) => eraseSome(tx, sessionId);
    while (!(await this.#database.tenant(tenantId, some, { signal })));
  }
}

/** One round over the tables; false when something may be left. */
async function eraseSome(tx: Tx, sessionId: string): Promise<boolean> {
  let whole = true;
  for (const sql of [...DELETED, ...EMPTIED]) {
    whole = (await tx.execute(sql, [sessionId, ERASURE_ROWS])) < ERASURE_ROWS && whole;
  }
  return whole;
}
