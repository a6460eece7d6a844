import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";

/** How a verification ended; the caller is told only that a credential works or not. */
export type VerificationOutcome =
  | "accepted"
  | "malformed"
  | "unknown"
  | "wrong_secret"
  | "revoked"
  | "expired"
  | "tenant_gone"
  | "tenant_suspended";

export interface KeySubject {
  readonly tenantId: string;
  readonly keyId: string;
}

/** Business events of auth: counters and log lines. None of them throws. */
export interface AuthEvents {
  verified(outcome: VerificationOutcome, key?: KeySubject | undefined): void;
  keyCreated(key: KeySubject): void;
  keyRevoked(key: KeySubject): void;
  adminKey(what: "kept" | "given" | "generated", keyId: string): void;
  /** Last-use times could not be written; they are tried again with the next batch. */
  useNotWritten(error: unknown, count: number): void;
}

export function createAuthEvents(log: Log, metrics: Metrics): AuthEvents {
  const verifications = metrics.counter("auth_verifications_total", "Credentials verified, by outcome", ["outcome"]);
  const created = metrics.counter("auth_api_keys_created_total", "API keys created", ["tenant_id"]);
  const revoked = metrics.counter("auth_api_keys_revoked_total", "API keys revoked", ["tenant_id"]);
  return {
    verified(outcome, key) {
      verifications.inc({ outcome });
      if (outcome === "accepted" || key === undefined) return;
      const fields = { event: "auth.refused", outcome, tenant_id: key.tenantId, key_id: key.keyId };
      // A right key id with a wrong secret and a right checksum is no typing error.
      if (outcome === "wrong_secret") log.warn({ ...fields, alert: true }, "a key id came with a wrong secret");
      else log.info(fields, "a credential was refused");
    },
    keyCreated({ tenantId, keyId }) {
      created.inc({ tenant_id: tenantId });
      log.info({ event: "auth.key_created", tenant_id: tenantId, key_id: keyId }, "API key created");
    },
    keyRevoked({ tenantId, keyId }) {
      revoked.inc({ tenant_id: tenantId });
      log.info({ event: "auth.key_revoked", tenant_id: tenantId, key_id: keyId }, "API key revoked");
    },
    adminKey(what, keyId) {
      log.info({ event: "auth.admin_key", outcome: what, key_id: keyId }, `administrator's key ${what}`);
    },
    useNotWritten(error, count) {
      log.warn({ event: "auth.use_not_written", err: error, count }, "last-use times of keys were not written");
    },
  };
}
