import type { Tx } from "#platform/postgres/database.ts";
import { type Fence, SEQ_BLOCK } from "./run-store.ts";

/** A lease to renew, and how far its numbers are used up. */
export interface HeldLease {
  fence: Fence;
  nextSeq: bigint;
}

export interface RenewedLeases {
  /** Runs whose lease is extended. */
  renewed: ReadonlySet<string>;
  /** Runs that this owner does not hold any more: another one took them, or they have ended. */
  lost: ReadonlySet<string>;
}

/**
 * Extends the leases of one owner's runs in one statement, with a new block of numbers for a run that has used half of
 * its own. A run that somebody writes to at this moment is left for the next time: one stuck transaction must not cost
 * the leases of all the others. Worker role.
 */
export async function renewLeases(
  tx: Tx,
  owner: string,
  held: readonly HeldLease[],
  leaseMs: number,
): Promise<RenewedLeases> {
  const tenants = held.map(({ fence }) => fence.tenantId);
  const runs = held.map(({ fence }) => fence.runId);
  const epochs = held.map(({ fence }) => fence.epoch);
  const mine = "unnest($2::text[], $3::text[], $4::int[]) AS mine (tenant_id, run_id, epoch)";
  const own = `r.tenant_id = mine.tenant_id AND r.run_id = mine.run_id AND r.epoch = mine.epoch AND r.owner = $1
    AND r.state + 0 IN (1, 2)`;
  const renewed = await tx.query<{ run_id: string }>(
    `WITH free AS (
       SELECT r.tenant_id, r.run_id, used.next_seq FROM ${mine}
       JOIN unnest($3::text[], $5::bigint[]) AS used (run_id, next_seq) USING (run_id)
       JOIN agent.runs r ON ${own} FOR UPDATE OF r SKIP LOCKED
     )
     UPDATE agent.runs r SET lease_expires = clock_timestamp() + $6 * interval '1 ms',
       seq_reserved = CASE WHEN r.seq_reserved - free.next_seq < $7::bigint / 2 THEN r.seq_reserved + $7::bigint
         ELSE r.seq_reserved END
     FROM free WHERE r.tenant_id = free.tenant_id AND r.run_id = free.run_id RETURNING r.run_id`,
    [owner, tenants, runs, epochs, held.map(({ nextSeq }) => nextSeq.toString()), leaseMs, SEQ_BLOCK.toString()],
  );
  const kept = new Set(renewed.map(({ run_id }) => run_id));
  if (kept.size === held.length) return { renewed: kept, lost: new Set() };
  const still = await tx.query<{ run_id: string }>(`SELECT r.run_id FROM ${mine} JOIN agent.runs r ON ${own}`, [
    owner,
    tenants,
    runs,
    epochs,
  ]);
  const owned = new Set(still.map(({ run_id }) => run_id));
  return { renewed: kept, lost: new Set(runs.filter((run) => !kept.has(run) && !owned.has(run))) };
}

/**
 * Gives an owner's leases up, so that others take the runs at once. The attempt does not count: nothing went wrong with
 * the run. Worker role.
 */
export async function releaseLeases(tx: Tx, owner: string, fences: readonly Fence[]): Promise<void> {
  await tx.execute(
    `UPDATE agent.runs r SET lease_expires = clock_timestamp(), attempt = attempt - 1
     FROM unnest($2::text[], $3::text[], $4::int[]) AS mine (tenant_id, run_id, epoch)
     WHERE r.tenant_id = mine.tenant_id AND r.run_id = mine.run_id AND r.epoch = mine.epoch AND r.owner = $1
       AND r.state + 0 IN (1, 2)`,
    [owner, fences.map(({ tenantId }) => tenantId), fences.map(({ runId }) => runId), fences.map(({ epoch }) => epoch)],
  );
}

/** A run whose lease was taken. */
export interface ClaimedRun {
  tenantId: string;
  runId: string;
  /** Why it goes on; null when its owner was lost. */
  resumeCause: string | null;
}

/**
 * Takes over runs whose lease has expired: a new owner, the next epoch, a block of numbers above the old one. It is another
 * attempt unless the run had waited for something that has come. Worker role.
 */
export async function claimExpired(
  tx: Tx,
  taker: { owner: string; address: string; leaseMs: number },
  limit: number,
): Promise<ClaimedRun[]> {
  return tx.query<ClaimedRun & Record<string, unknown>>(
    `WITH expired AS (
       SELECT tenant_id, run_id, resume_cause FROM agent.runs WHERE state = 2 AND lease_expires < clock_timestamp()
       ORDER BY lease_expires LIMIT $4 FOR UPDATE SKIP LOCKED
     )
     UPDATE agent.runs r SET owner = $1, owner_address = $2, epoch = epoch + 1,
       attempt = attempt + CASE WHEN e.resume_cause IS NULL THEN 1 ELSE 0 END, resume_cause = NULL,
       seq_reserved = seq_reserved + $5, lease_expires = clock_timestamp() + $3 * interval '1 ms'
     FROM expired e WHERE r.tenant_id = e.tenant_id AND r.run_id = e.run_id
     RETURNING r.tenant_id AS "tenantId", r.run_id AS "runId", e.resume_cause AS "resumeCause"`,
    [taker.owner, taker.address, taker.leaseMs, limit, SEQ_BLOCK.toString()],
  );
}
