import { isId } from "../id.ts";
import type { Call } from "../rpc/call.ts";
import { notFound } from "../rpc/errors.ts";
import { isPlatformAdmin } from "../rpc/principal.ts";
import type { WriteLog } from "../telemetry/log.ts";

/** What stands for the caller's own tenant in a path. */
const OWN = "me";

/** The tenant that a call works on. */
export interface TenantChoice {
  readonly tenantId: string;
  /** True when a platform administrator works on another tenant than its own; whoever serves such a call audits it. */
  readonly crossed: boolean;
}

/**
 * The tenant that a request names, before anything is looked up: `me` and the caller's own id mean the caller's tenant,
 * and `platform:admin` may name any. Everything else is NOT_FOUND for `tenant`, the answer for a tenant that does not
 * exist, and leaves a warning with `alert` in the log, since no well-behaved client names a foreign tenant.
 */
export function resolveTenant(call: Call, requested: string, log: { readonly warn: WriteLog }): TenantChoice {
  const own = call.principal.tenantId;
  if (own !== "" && (requested === OWN || requested === own)) return { tenantId: own, crossed: false };
  if (!isPlatformAdmin(call.principal)) {
    log.warn(
      {
        event: "tenant.foreign",
        alert: true,
        tenant_id: own,
        subject: call.principal.subject,
        credential_id: call.principal.credentialId,
        resource_type: "tenant",
        resource_id: isId("ten", requested) ? requested : "malformed",
        request_id: call.requestId,
        ip: call.ip,
      },
      "a caller named a tenant that is not its own",
    );
    throw notFound("tenant");
  }
  if (!isId("ten", requested)) throw notFound("tenant");
  return { tenantId: requested, crossed: true };
}
