import type { Tx } from "#platform/postgres/database.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { type Reach, reaches } from "../domain/ownership.ts";
import * as store from "../store/session-store.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** A session within reach, by its id or by the caller's own UUID for it; else NOT_FOUND. */
export async function findSession(tx: Tx, id: string, reach: Reach, lock = false): Promise<store.SessionRow> {
  const session = isExternalId(id)
    ? await store.sessionByExternalId(tx, id.toLowerCase(), reach.endUserId)
    : await store.sessionById(tx, id, lock);
  if (session === undefined || !reaches(reach, session)) throw notFound("session");
  if (lock && session.external_id !== null)
    return (await store.sessionById(tx, session.session_id, true)) ?? raise(notFound("session"));
  return session;
}

/** True for an id that is the caller's own. */
export function isExternalId(id: string): boolean {
  return UUID.test(id);
}
