import { setTimeout as sleep } from "node:timers/promises";
import type { Database } from "#platform/postgres/database.ts";

const WITHIN_MS = 10_000;

/** Resolves when a tenant has no deleted session any more that is yet to be erased. */
export async function erased(database: Database, tenantId: string): Promise<void> {
  const until = performance.now() + WITHIN_MS;
  const left = () =>
    database.tenant(tenantId, (tx) => tx.query("SELECT FROM agent.sessions WHERE deleted_at IS NOT NULL"));
  while ((await left()).length > 0) {
    if (performance.now() > until) throw new Error("a deleted session was not erased");
    await sleep(10);
  }
}
