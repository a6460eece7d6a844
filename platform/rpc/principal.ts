import { Code } from "@connectrpc/connect";
import { AppError } from "./errors.ts";
import { grants, grantsAny, PLATFORM_ADMIN } from "./scopes.ts";

/** On whose authority a call runs. Built from a verified credential only, never from a header or a body. */
export interface Principal {
  /** `ten_…`; empty for a service's own identity. */
  readonly tenantId: string;
  /** What was authenticated: `key_…`, or `service:<name>`. */
  readonly subject: string;
  readonly scopes: readonly string[];
  /** User that the credential is bound to; undefined for machine credentials. */
  readonly userId?: string | undefined;
  /** Id of the credential, for audit. */
  readonly credentialId: string;
  /** Services that acted on the principal's behalf, nearest last (RFC 8693 `act`). */
  readonly actors: readonly string[];
}

/** The identity of a service itself, for calls that precede any principal. */
export function servicePrincipal(service: string, scopes: readonly string[]): Principal {
  return { tenantId: "", subject: `service:${service}`, scopes, credentialId: "", actors: [] };
}

/** Throws PERMISSION_DENIED SCOPE_MISSING unless the principal holds one of the scopes. Decided from claims alone. */
export function requireAnyScope(principal: Principal, anyOf: readonly string[]): void {
  if (grantsAny(principal.scopes, anyOf)) return;
  throw new AppError({
    code: Code.PermissionDenied,
    reason: "SCOPE_MISSING",
    message: `This credential lacks the scope that the method needs: ${anyOf.join(" or ")}.`,
    facts: { scopes: anyOf.join(" ") },
  });
}

/** True when the principal holds the scope. */
export function hasScope(principal: Principal, scope: string): boolean {
  return grants(principal.scopes, scope);
}

/** True for those who run the installation. */
export function isPlatformAdmin(principal: Principal): boolean {
  return principal.scopes.includes(PLATFORM_ADMIN);
}
