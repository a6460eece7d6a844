import { setTimeout as sleep } from "node:timers/promises";
import type { Database } from "#platform/postgres/database.ts";

export const TENANT_STATUSES = ["active", "suspended", "deleted"] as const;

export type TenantStatus = (typeof TENANT_STATUSES)[number];

/** What auth knows of a tenant. */
export interface TenantState {
  readonly tenantId: string;
  readonly status: TenantStatus;
  /** Rises with every change of the tenant. */
  readonly epoch: bigint;
}

const LOOK_AGAIN_MS = 50;

/** The states of tenants, as config's events tell them. */
export class TenantStateStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Keeps the state unless a newer or equal epoch is known. Events may come twice and in any order. */
  async record({ tenantId, status, epoch }: TenantState, signal?: AbortSignal): Promise<void> {
    const sql = `INSERT INTO auth.tenants AS t (tenant_id, status, epoch) VALUES ($1, $2, $3)
      ON CONFLICT (tenant_id) DO UPDATE SET status = excluded.status, epoch = excluded.epoch WHERE t.epoch < excluded.epoch`;
    await this.#database.tenant(tenantId, (tx) => tx.execute(sql, [tenantId, status, epoch]), { signal });
  }

  async status(tenantId: string, signal?: AbortSignal): Promise<TenantStatus | undefined> {
    const sql = "SELECT status FROM auth.tenants WHERE tenant_id = $1";
    const read = { readOnly: true, signal };
    return (await this.#database.tenant(tenantId, (tx) => tx.one<{ status: TenantStatus }>(sql, [tenantId]), read))
      ?.status;
  }

  /**
   * The tenant's status, or undefined when there is none after `waitMs`: the event of a tenant that was created a moment
   * ago may still be on its way. No connection is held while waiting.
   */
  async awaitStatus(tenantId: string, waitMs: number, signal: AbortSignal): Promise<TenantStatus | undefined> {
    const until = performance.now() + waitMs;
    for (;;) {
      const status = await this.status(tenantId, signal);
      if (status !== undefined || performance.now() >= until) return status;
      await sleep(LOOK_AGAIN_MS, undefined, { signal });
    }
  }
}
