import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";

/** One answer for every credential that does not work, so that it tells nothing about which keys exist or existed. */
export function credentialInvalid(): AppError {
  return new AppError({
    code: Code.Unauthenticated,
    reason: "CREDENTIAL_INVALID",
    message: "The credential is not valid.",
  });
}

export function tenantSuspended(): AppError {
  return new AppError({
    code: Code.PermissionDenied,
    reason: "TENANT_SUSPENDED",
    message: "The tenant is suspended. Its credentials work again when it is reactivated.",
  });
}

/** The caller tries to hand on, or to take away, scopes that it does not hold. */
export function scopesNotHeld(scopes: readonly string[], message: string): AppError {
  return new AppError({
    code: Code.PermissionDenied,
    reason: "SCOPE_MISSING",
    message,
    facts: { scopes: scopes.join(" ") },
  });
}
