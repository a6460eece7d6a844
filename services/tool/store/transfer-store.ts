import { newId } from "#platform/id.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import type { Owner } from "./order-store.ts";
import { storable } from "./storable.ts";

export interface TransferRequest {
  readonly from: string;
  readonly to: string;
  readonly amountMinor: number;
  readonly note: string;
}

export interface Transfer extends TransferRequest {
  readonly transferId: string;
  readonly createdAt: Date;
}

/** What went into each account through transfers, less what went out, in hundredths. */
export type Movements = ReadonlyMap<string, number>;

/** Transfers of the demo bank. */
export class TransferStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async movements(owner: Owner, signal: AbortSignal): Promise<Movements> {
    return this.#reading(owner, signal, (tx) => movements(tx, owner));
  }

  /** The user's transfers since then, the newest first, 1 000 at most. */
  async since(owner: Owner, from: Date, signal: AbortSignal): Promise<Transfer[]> {
    const since = "created_at >= $2 ORDER BY created_at DESC, transfer_id DESC LIMIT 1000";
    return this.#reading(owner, signal, (tx) => read(tx, owner, since, from));
  }

  /**
   * Books a transfer, one of a user after another; `check` sees what went before and may throw. A call that is repeated
   * gets the transfer that it booked first, whatever it asks then: the caller compares.
   */
  async book(
    owner: Owner,
    request: TransferRequest,
    check: (movements: Movements) => void,
    signal: AbortSignal,
  ): Promise<Transfer> {
    const { call, endUserId, sessionId, requestKey } = owner;
    const { from, to, amountMinor, note } = request;
    return this.#database.tenant(
      call.principal.tenantId,
      async (tx) => {
        await tx.lockKey("demo transfers", call.principal.tenantId, endUserId);
        const [earlier] = await read(tx, owner, "request_key = $2", storable(requestKey));
        if (earlier !== undefined) return earlier;
        check(await movements(tx, owner));
        const transferId = newId("trf");
        const [booked] = await tx.query<{ created_at: Date }>(
          `INSERT INTO tool.demo_transfers (tenant_id, transfer_id, end_user_id, session_id, request_key, from_account,
             to_account, amount_minor, note)
           VALUES (agentmesh.current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8) RETURNING created_at`,
          [transferId, ...[endUserId, sessionId, requestKey].map(storable), from, to, amountMinor, storable(note)],
        );
        return { ...request, transferId, createdAt: booked?.created_at as Date };
      },
      { signal, deadline: call.deadline },
    );
  }

  #reading<T>({ call }: Owner, signal: AbortSignal, fn: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#database.tenant(call.principal.tenantId, fn, { readOnly: true, signal, deadline: call.deadline });
  }
}

/** The user's own rows; the condition on the tenant stands beside row-level security, not in its place. */
const OWN = "tenant_id = agentmesh.current_tenant() AND end_user_id = $1";

async function movements(tx: Tx, { endUserId }: Owner): Promise<Movements> {
  const rows = await tx.query<{ account: string; minor: string }>(
    `SELECT account, sum(minor)::text AS minor FROM (
       SELECT to_account AS account, amount_minor AS minor FROM tool.demo_transfers WHERE ${OWN}
       UNION ALL
       SELECT from_account, -amount_minor FROM tool.demo_transfers WHERE ${OWN}
     ) AS moved GROUP BY account`,
    [storable(endUserId)],
  );
  return new Map(rows.map(({ account, minor }) => [account, Number(minor)]));
}

interface Row {
  transfer_id: string;
  from_account: string;
  to_account: string;
  amount_minor: string;
  note: string;
  created_at: Date;
}

async function read(tx: Tx, { endUserId }: Owner, where: string, value: unknown): Promise<Transfer[]> {
  const rows = await tx.query<Row>(
    `SELECT transfer_id, from_account, to_account, amount_minor::text, note, created_at
     FROM tool.demo_transfers WHERE ${OWN} AND ${where}`,
    [storable(endUserId), value],
  );
  return rows.map((row) => ({
    transferId: row.transfer_id,
    from: row.from_account,
    to: row.to_account,
    amountMinor: Number(row.amount_minor),
    note: row.note,
    createdAt: row.created_at,
  }));
}
