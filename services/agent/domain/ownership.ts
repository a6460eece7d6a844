import { hasScope, type Principal } from "#platform/rpc/principal.ts";

/**
 * Whose sessions and runs a principal may see or change. A credential that is bound to a user sees that user's only;
 * a machine credential speaks for the tenant and may name a user.
 */
export interface Reach {
  /** Rows of this user only; undefined for all of the tenant's. */
  endUserId: string | undefined;
}

/** For reads: `sessions:read_all` lifts the binding to a user. */
export function readReach(principal: Principal): Reach {
  if (principal.userId === undefined || hasScope(principal, "sessions:read_all")) return { endUserId: undefined };
  return { endUserId: principal.userId };
}

/** For changes: a bound credential changes its own only, whatever it may read. */
export function writeReach(principal: Principal): Reach {
  return { endUserId: principal.userId };
}

/** True when a row of this owner is within reach. */
export function reaches(reach: Reach, owner: { end_user_id: string }): boolean {
  return reach.endUserId === undefined || reach.endUserId === owner.end_user_id;
}

/** The user that a new session or run belongs to: the credential's, else the one that a machine credential names. */
export function ownerFor(principal: Principal, named: string): string {
  return principal.userId ?? named;
}
