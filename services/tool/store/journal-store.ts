import type { Database, Tx } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { storable } from "./storable.ts";

/** Which call: the same whenever it is repeated for this user. */
export interface JournalKey {
  readonly endUserId: string;
  readonly requestKey: string;
}

/** What is written before a tool runs. */
export interface JournalIntent extends JournalKey {
  readonly tool: string;
  /** SHA-256 of what is asked for. */
  readonly digest: Uint8Array;
  readonly sessionId: string;
  readonly runId: string;
  readonly callId: string;
  /** The process that runs it. */
  readonly instanceId: string;
  /** How long from now the tool can be at work at most. */
  readonly lostAfterMs: number;
}

/** What is known of an earlier attempt. */
export interface JournalEntry {
  readonly state: "RUNNING" | "FINISHED" | "UNKNOWN";
  readonly digest: Uint8Array;
  readonly instanceId: string;
  /** Milliseconds until a RUNNING one counts as lost; not above 0 when it does. */
  readonly lostInMs: number;
  /** Of a FINISHED one. */
  readonly result: Uint8Array | null;
}

/** What becomes of a RUNNING entry of this process: it gets the result, or stays without one, or has never been. */
export type JournalEnd = JournalKey & { readonly instanceId: string } & (
    | { readonly become: "FINISHED"; readonly result: Uint8Array }
    | { readonly become: "UNKNOWN" }
    | { readonly become: "REMOVED" }
  );

/** Entries of the current tenant; the condition stands beside row-level security, not in its place. */
const OWN = "tenant_id = agentmesh.current_tenant() AND end_user_id = $1 AND request_key = $2";

/** Calls that must not run twice. */
export class JournalStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Commits the intent; "claimed" when there was no entry of this key, else that entry. */
  async claim(call: Call, intent: JournalIntent): Promise<"claimed" | JournalEntry> {
    const { endUserId, requestKey, tool, digest, sessionId, runId, callId, instanceId, lostAfterMs } = intent;
    const ids = [endUserId, requestKey, sessionId, runId, callId].map(storable);
    const options = { signal: call.signal, deadline: call.deadline };
    for (;;) {
      const [row] = await this.#database.tenant(
        call.principal.tenantId,
        (tx) =>
          tx.finish<{ claimed: boolean } & JournalEntry>(
            `WITH claimed AS (
               INSERT INTO tool.tool_journal (tenant_id, end_user_id, request_key, session_id, run_id, call_id, tool,
                 digest, instance_id, unknown_after)
               VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8,
                 clock_timestamp() + make_interval(secs => $9))
               ON CONFLICT (tenant_id, end_user_id, request_key) DO NOTHING
               RETURNING state, digest, instance_id, unknown_after, result
             ), entry AS (
               SELECT true AS claimed, * FROM claimed
               UNION ALL
               SELECT false, state, digest, instance_id, unknown_after, result FROM tool.tool_journal WHERE ${OWN}
             )
             SELECT claimed, state, digest, instance_id AS "instanceId", result,
               (extract(epoch FROM unknown_after - clock_timestamp()) * 1000)::float8 AS "lostInMs"
             FROM entry`,
            [...ids, tool, digest, instanceId, lostAfterMs / 1000],
          ),
        options,
      );
      if (row?.claimed) return "claimed";
      if (row !== undefined) return row;
      // Somebody was faster by less than this statement's view of the table.
    }
  }

  /**
   * Gives up on an entry that is RUNNING in this process as it stands in the table, though nothing here runs it, or that
   * is past its time. False when it is no longer so.
   */
  async giveUp(call: Call, { endUserId, requestKey, instanceId }: JournalIntent): Promise<boolean> {
    const changed = await this.#database.tenant(
      call.principal.tenantId,
      (tx) =>
        tx.execute(
          `UPDATE tool.tool_journal SET state = 'UNKNOWN', changed_at = clock_timestamp()
           WHERE ${OWN} AND state = 'RUNNING' AND (instance_id = $3 OR unknown_after <= clock_timestamp())`,
          [storable(endUserId), storable(requestKey), instanceId],
        ),
      { signal: call.signal, deadline: call.deadline },
    );
    return changed > 0;
  }

  /** Removes entries that came into their state longer ago; returns how many. */
  async deleteOlderThan(ageMs: number, signal: AbortSignal): Promise<number> {
    const sql = "DELETE FROM tool.tool_journal WHERE changed_at < clock_timestamp() - make_interval(secs => $1)";
    return this.#database.worker((tx) => tx.execute(sql, [ageMs / 1000]), { signal });
  }
}

/** Ends this process's entry in the transaction of the call's record. False when others have given up on it. */
export async function endEntry(tx: Tx, end: JournalEnd): Promise<boolean> {
  const running = `${OWN} AND state = 'RUNNING' AND instance_id = $3`;
  const whose = [storable(end.endUserId), storable(end.requestKey), end.instanceId];
  if (end.become === "REMOVED")
    return (await tx.execute(`DELETE FROM tool.tool_journal WHERE ${running}`, whose)) === 1;
  const changed = await tx.execute(
    `UPDATE tool.tool_journal SET state = $4, result = $5, changed_at = clock_timestamp() WHERE ${running}`,
    [...whose, end.become, end.become === "FINISHED" ? end.result : null],
  );
  return changed === 1;
}
