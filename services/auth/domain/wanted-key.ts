import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { ApiKey } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { type FieldViolation, invalidFields } from "#platform/rpc/errors.ts";
import { isPlatformAdmin, type Principal } from "#platform/rpc/principal.ts";
import { grants, isScope, PLATFORM_ADMIN, TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { scopesNotHeld } from "../errors.ts";

/** A key that may be created. */
export interface WantedKey {
  readonly name: string;
  readonly scopes: readonly string[];
  /** Empty for a machine credential. */
  readonly userId: string;
  readonly expiresAt: Date | undefined;
}

/** The last instant that google.protobuf.Timestamp knows, 9999-12-31T23:59:59.999Z. */
const LAST_INSTANT_MS = 253_402_300_799_999;

/** What a caller asks for in its own tenant: at most its own scopes, and its own user when it is bound to one. */
export function ownKey(asked: ApiKey | undefined, caller: Principal, now: Date): WantedKey {
  const { violations, key } = read(asked, caller.tenantId, now);
  if (key.scopes.length === 0) violations.push({ field: "api_key.scopes", description: "name at least one scope" });
  const userId = boundUser(key.userId, caller, violations);
  if (violations.length > 0) throw invalidFields(...violations);
  const beyond = key.scopes.filter((scope) => !grants(caller.scopes, scope));
  if (beyond.length > 0) {
    throw scopesNotHeld(beyond, `A key cannot have scopes that its creator lacks: ${beyond.join(", ")}.`);
  }
  return { ...key, userId };
}

/**
 * What a platform administrator asks for in a tenant: any tenant scopes, all of them when it names none. Only keys of
 * the first tenant may hold `platform:admin`, and in the administrator's own tenant the rule on users holds as ever.
 */
export function tenantKey(asked: ApiKey | undefined, tenantId: string, caller: Principal, now: Date): WantedKey {
  const { violations, key } = read(asked, tenantId, now);
  const userId = tenantId === caller.tenantId ? boundUser(key.userId, caller, violations) : key.userId;
  if (violations.length > 0) throw invalidFields(...violations);
  return { ...key, userId, scopes: key.scopes.length > 0 ? key.scopes : TENANT_SCOPES };
}

/** Whether the caller may revoke a key with these scopes: who cannot make administrators cannot unmake them either. */
export function mayRevoke(scopes: readonly string[], caller: Principal): boolean {
  return !scopes.includes(PLATFORM_ADMIN) || isPlatformAdmin(caller);
}

function read(asked: ApiKey | undefined, tenantId: string, now: Date) {
  const violations: FieldViolation[] = [];
  const refuse = (field: string, description: string) => violations.push({ field: `api_key.${field}`, description });
  const name = asked?.name ?? "";
  if (name.trim() === "") refuse("name", "a key needs a name");
  else if (/\p{Cc}/u.test(name)) refuse("name", "control characters are not allowed");
  const userId = asked?.userId ?? "";
  if (/\p{Cc}/u.test(userId)) refuse("user_id", "control characters are not allowed");
  for (const [i, scope] of (asked?.scopes ?? []).entries()) {
    if (!isScope(scope)) refuse(`scopes[${i}]`, "is not a scope");
    else if (scope === PLATFORM_ADMIN && tenantId !== FIRST_TENANT_ID) {
      refuse(`scopes[${i}]`, "only keys of the installation's own tenant may hold this scope");
    }
  }
  let expiresAt: Date | undefined;
  if (asked?.expireTime !== undefined) {
    const ms = timestampMs(asked.expireTime);
    if (!(ms > now.getTime())) refuse("expire_time", "must be in the future");
    else if (ms > LAST_INSTANT_MS) refuse("expire_time", "must be a time before the year 10000");
    else expiresAt = new Date(ms);
  }
  return { violations, key: { name, scopes: [...(asked?.scopes ?? [])], userId, expiresAt } };
}

function boundUser(asked: string, caller: Principal, violations: FieldViolation[]): string {
  if (caller.userId === undefined) return asked;
  if (asked !== "" && asked !== caller.userId) {
    const description = "a credential that is bound to a user can create keys for that user only";
    violations.push({ field: "api_key.user_id", description });
  }
  return caller.userId;
}
