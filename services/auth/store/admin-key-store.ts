import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import { servicePrincipal } from "#platform/rpc/principal.ts";
import { PLATFORM_ADMIN, TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import type { ApiKeyParts } from "../domain/api-key-format.ts";
import type { KeyDigest } from "../domain/key-digest.ts";
import { insertKey, type KeyOrigin, revokeKey } from "./api-key-store.ts";

const ADMIN_SCOPES = [...TENANT_SCOPES, PLATFORM_ADMIN];

/** A key of the first tenant that the bootstrap may meet. */
export interface KnownAdminKey extends KeyDigest {
  readonly keyId: string;
  readonly origin: KeyOrigin;
  readonly revoked: boolean;
}

/** The administrator's keys while nobody else may change them. */
export interface AdminKeys {
  find(keyId: string): Promise<KnownAdminKey | undefined>;
  /** Whether some key works that has `platform:admin`. */
  anyAdmin(): Promise<boolean>;
  add(key: ApiKeyParts, digest: KeyDigest, origin: Exclude<KeyOrigin, "call">): Promise<void>;
  setDigest(keyId: string, digest: KeyDigest): Promise<void>;
  /** Revokes the keys that an earlier bootstrap generated, but for one. */
  revokeGenerated(except?: string): Promise<void>;
}

/**
 * Runs `settle` under a lock that replicas which start together wait for, in a transaction of the first tenant. Makes
 * sure of the tenant's state row, and of all of today's scopes on the administrator's keys: after an upgrade too.
 */
export async function withAdminKeys<T>(
  database: Database,
  signal: AbortSignal,
  settle: (keys: AdminKeys) => Promise<T>,
): Promise<T> {
  return database.tenant(
    FIRST_TENANT_ID,
    async (tx) => {
      await tx.lockKey("auth", "admin key");
      // Epoch 0 gives way to any event of config's.
      const state =
        "INSERT INTO auth.tenants (tenant_id, status, epoch) VALUES ($1, 'active', 0) ON CONFLICT DO NOTHING";
      await tx.execute(state, [FIRST_TENANT_ID]);
      const scopes = "UPDATE auth.api_keys SET scopes = $1 WHERE origin <> 'call' AND scopes <> $1";
      await tx.execute(scopes, [ADMIN_SCOPES]);
      return settle(adminKeys(tx, bootCall(signal)));
    },
    { signal },
  );
}

function adminKeys(tx: Tx, call: Call): AdminKeys {
  return {
    async find(keyId) {
      const row = await tx.one<{ origin: KeyOrigin; revoked: boolean; pepper_id: string; digest: Buffer }>(
        `SELECT k.origin, k.revoked_at IS NOT NULL AS revoked, c.pepper_id, c.digest
         FROM auth.api_keys k JOIN auth.credentials c USING (tenant_id, api_key_id) WHERE k.api_key_id = $1`,
        [keyId],
      );
      return row && { keyId, origin: row.origin, revoked: row.revoked, pepperId: row.pepper_id, digest: row.digest };
    },
    async anyAdmin() {
      const sql = `SELECT FROM auth.api_keys WHERE $1 = ANY (scopes) AND revoked_at IS NULL
        AND (expires_at IS NULL OR expires_at > clock_timestamp()) LIMIT 1`;
      return (await tx.one(sql, [PLATFORM_ADMIN])) !== undefined;
    },
    async add(parts, digest, origin) {
      const key = { name: "Administrator", scopes: ADMIN_SCOPES, userId: "", expiresAt: undefined, parts, digest };
      await insertKey(tx, FIRST_TENANT_ID, key, origin);
      await audit(tx, "auth", call, { type: "api_key.created", resource: parts.keyId, details: { origin } });
    },
    async setDigest(keyId, { pepperId, digest }) {
      const sql = "UPDATE auth.credentials SET pepper_id = $1, digest = $2 WHERE api_key_id = $3";
      await tx.execute(sql, [pepperId, digest, keyId]);
      await audit(tx, "auth", call, { type: "api_key.secret_replaced", resource: keyId });
    },
    async revokeGenerated(except = "") {
      const sql =
        "SELECT api_key_id FROM auth.api_keys WHERE origin = 'generated' AND revoked_at IS NULL AND api_key_id <> $1";
      for (const { api_key_id: keyId } of await tx.query<{ api_key_id: string }>(sql, [except])) {
        await revokeKey(tx, FIRST_TENANT_ID, keyId);
        await audit(tx, "auth", call, { type: "api_key.revoked", resource: keyId, details: { replaced: true } });
      }
    },
  };
}

/** On whose behalf the bootstrap writes audit rows. */
function bootCall(signal: AbortSignal): Call {
  const principal = { ...servicePrincipal("auth", []), tenantId: FIRST_TENANT_ID };
  return { principal, signal, requestId: newId("req"), ip: "", userAgent: "" };
}
