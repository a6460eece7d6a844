import type { Database } from "#platform/postgres/database.ts";
import type { KeyDigest } from "../domain/key-digest.ts";
import type { TenantStatus } from "./tenant-state-store.ts";

/** A key's tenant and digest, found by its id alone. */
export interface Credential extends KeyDigest {
  readonly tenantId: string;
  readonly keyId: string;
}

/** What a key may do at the moment. */
export interface KeyStanding {
  readonly scopes: readonly string[];
  readonly userId: string;
  readonly expiresAt: Date | undefined;
  readonly revoked: boolean;
  /** Undefined while auth has not heard of the tenant. */
  readonly tenantStatus: TenantStatus | undefined;
}

/** One use of a key, for `last_use_time`. */
export interface KeyUse {
  readonly tenantId: string;
  readonly keyId: string;
  readonly at: Date;
}

/** The credential index, and the row that a credential stands for. */
export class CredentialStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Sees all tenants, for the tenant is what it finds. */
  async lookUp(keyId: string, signal: AbortSignal): Promise<Credential | undefined> {
    const sql = "SELECT tenant_id, pepper_id, digest FROM auth.credentials WHERE api_key_id = $1";
    const row = await this.#database.worker(
      (tx) => tx.one<{ tenant_id: string; pepper_id: string; digest: Buffer }>(sql, [keyId]),
      { readOnly: true, signal },
    );
    return row && { tenantId: row.tenant_id, keyId, pepperId: row.pepper_id, digest: row.digest };
  }

  async standing({ tenantId, keyId }: Credential, signal: AbortSignal): Promise<KeyStanding | undefined> {
    interface Row {
      scopes: string[];
      user_id: string;
      expires_at: Date | null;
      revoked: boolean;
      status: TenantStatus | null;
    }
    const sql = `SELECT k.scopes, k.user_id, k.expires_at, k.revoked_at IS NOT NULL AS revoked, t.status
      FROM auth.api_keys k LEFT JOIN auth.tenants t USING (tenant_id) WHERE k.api_key_id = $1`;
    const row = await this.#database.tenant(tenantId, (tx) => tx.one<Row>(sql, [keyId]), { readOnly: true, signal });
    if (row === undefined) return undefined;
    return {
      scopes: row.scopes,
      userId: row.user_id,
      expiresAt: row.expires_at ?? undefined,
      revoked: row.revoked,
      tenantStatus: row.status ?? undefined,
    };
  }

  /** Puts a digest under another pepper in the place of the one that was read. */
  async renewDigest(credential: Credential, renewed: KeyDigest, signal: AbortSignal): Promise<void> {
    const { tenantId, keyId, digest } = credential;
    const sql = "UPDATE auth.credentials SET pepper_id = $1, digest = $2 WHERE api_key_id = $3 AND digest = $4";
    const params = [renewed.pepperId, renewed.digest, keyId, digest];
    await this.#database.tenant(tenantId, (tx) => tx.execute(sql, params), { signal });
  }

  /** Writes uses of keys of any tenants in one statement; a later use that is known already stays. */
  async markUsed(uses: readonly KeyUse[], signal?: AbortSignal): Promise<void> {
    const sql = `UPDATE auth.credentials c SET last_used_at = u.at
      FROM unnest($1::text[], $2::text[], $3::timestamptz[]) u (tenant_id, api_key_id, at)
      WHERE c.tenant_id = u.tenant_id AND c.api_key_id = u.api_key_id
        AND (c.last_used_at IS NULL OR c.last_used_at < u.at)`;
    const params = [uses.map((use) => use.tenantId), uses.map((use) => use.keyId), uses.map((use) => use.at)];
    await this.#database.worker((tx) => tx.execute(sql, params), { signal });
  }
}
