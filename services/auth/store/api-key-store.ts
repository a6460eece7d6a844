import { create, type DescMessage, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type {
  ApiKey,
  CreateApiKeyResponseSchema,
  CreateTenantApiKeyResponseSchema,
} from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { ApiKeyRevokedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { answerOnce, type Envelope, type Once } from "#platform/postgres/answer-once.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { enqueue } from "#platform/postgres/outbox.ts";
import type { Call } from "#platform/rpc/call.ts";
import { type ApiKeyParts, formatApiKey } from "../domain/api-key-format.ts";
import type { KeyDigest } from "../domain/key-digest.ts";
import type { WantedKey } from "../domain/wanted-key.ts";
import { type ApiKeyRow, apiKeyMessage, SELECT_KEYS } from "./api-key-row.ts";

/** How a key came to be. */
export type KeyOrigin = "call" | "given" | "generated";

/** The answers to a key's creation: two messages with the same fields. */
export type IssuedDesc = typeof CreateApiKeyResponseSchema | typeof CreateTenantApiKeyResponseSchema;

/** What may be listed: a user's own keys, or all of a tenant's. */
export interface KeyFilter {
  readonly userId: string | undefined;
  readonly showRevoked: boolean;
}

/** Where a list goes on: below this time and id. */
export interface KeyCursor {
  readonly createdAt: Date;
  readonly keyId: string;
}

/** A key's row as its creation needs it. */
export interface FreshKey extends WantedKey {
  readonly parts: ApiKeyParts;
  readonly digest: KeyDigest;
}

/** API keys in Postgres. Every method is one transaction of the tenant. */
export class ApiKeyStore {
  readonly #database: Database;
  readonly #envelope: Envelope;

  constructor(database: Database, envelope: Envelope) {
    this.#database = database;
    this.#envelope = envelope;
  }

  /** Adds the key and answers with it and its secret; a repeated request gets the first one's answer. */
  async create<O extends IssuedDesc>(
    call: Call,
    tenantId: string,
    key: FreshKey,
    once: Once<O>,
  ): Promise<MessageShape<O>> {
    const options = { schema: "auth", tenantId, call, once, envelope: this.#envelope };
    return this.#database.tenant(
      tenantId,
      (tx) =>
        answerOnce(tx, options, async () => {
          const row = await insertKey(tx, tenantId, key, "call");
          const { name, scopes, userId, expiresAt } = key;
          const details = { name, scopes, user_id: userId, expire_time: expiresAt };
          await audit(tx, "auth", call, { type: "api_key.created", resource: key.parts.keyId, details });
          return { apiKey: apiKeyMessage(row), secret: formatApiKey(key.parts) } as MessageInitShape<O>;
        }),
      inTime(call),
    );
  }

  async find(call: Call, keyId: string, userId: string | undefined): Promise<ApiKey | undefined> {
    const sql = `${SELECT_KEYS} AND k.api_key_id = $1 AND ($2::text IS NULL OR k.user_id = $2)`;
    const read = (tx: Tx) => tx.one<ApiKeyRow>(sql, [keyId, userId]);
    const row = await this.#database.tenant(call.principal.tenantId, read, { readOnly: true, ...inTime(call) });
    return row && apiKeyMessage(row);
  }

  /** At most `limit` keys, newest first. */
  async list(call: Call, filter: KeyFilter, after: KeyCursor | undefined, limit: number): Promise<ApiKey[]> {
    const sql = `${SELECT_KEYS}
        AND ($1 OR k.revoked_at IS NULL) AND ($2::text IS NULL OR k.user_id = $2)
        AND ($3::timestamptz IS NULL OR (k.created_at, k.api_key_id) < ($3, $4))
      ORDER BY k.created_at DESC, k.api_key_id DESC LIMIT $5`;
    const params = [filter.showRevoked, filter.userId, after?.createdAt, after?.keyId, limit];
    const read = (tx: Tx) => tx.query<ApiKeyRow>(sql, params);
    const rows = await this.#database.tenant(call.principal.tenantId, read, { readOnly: true, ...inTime(call) });
    return rows.map(apiKeyMessage);
  }

  /**
   * Revokes a key that `admit` does not refuse; a key that is revoked stays as it is. Returns whether this call did it.
   */
  async revoke<O extends DescMessage>(
    call: Call,
    keyId: string,
    once: Once<O>,
    admit: (key: { userId: string; scopes: readonly string[] } | undefined) => void,
  ): Promise<boolean> {
    const { tenantId } = call.principal;
    let revoked = false;
    await this.#database.tenant(
      tenantId,
      (tx) =>
        answerOnce(tx, { schema: "auth", tenantId, call, once }, async () => {
          const sql = `SELECT user_id, scopes, revoked_at FROM auth.api_keys
            WHERE tenant_id = agentmesh.current_tenant() AND api_key_id = $1 FOR UPDATE`;
          const row = await tx.one<Pick<ApiKeyRow, "user_id" | "scopes" | "revoked_at">>(sql, [keyId]);
          admit(row && { userId: row.user_id, scopes: row.scopes });
          if (row?.revoked_at === null) {
            await revokeKey(tx, tenantId, keyId);
            await audit(tx, "auth", call, { type: "api_key.revoked", resource: keyId });
            revoked = true;
          }
          return {} as MessageInitShape<O>;
        }),
      inTime(call),
    );
    return revoked;
  }
}

/** Adds a key and its credential. */
export async function insertKey(tx: Tx, tenantId: string, key: FreshKey, origin: KeyOrigin): Promise<ApiKeyRow> {
  const { name, scopes, userId, expiresAt, parts, digest } = key;
  const created = await tx.one<{ created_at: Date }>(
    `INSERT INTO auth.api_keys (tenant_id, api_key_id, name, scopes, user_id, origin, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING created_at`,
    [tenantId, parts.keyId, name, scopes, userId, origin, expiresAt],
  );
  await tx.execute("INSERT INTO auth.credentials (tenant_id, api_key_id, pepper_id, digest) VALUES ($1, $2, $3, $4)", [
    tenantId,
    parts.keyId,
    digest.pepperId,
    digest.digest,
  ]);
  return {
    api_key_id: parts.keyId,
    name,
    scopes: [...scopes],
    user_id: userId,
    created_at: created?.created_at ?? new Date(),
    expires_at: expiresAt ?? null,
    revoked_at: null,
    last_used_at: null,
  };
}

/** Revokes a key and tells whoever caches it. */
export async function revokeKey(tx: Tx, tenantId: string, keyId: string): Promise<void> {
  const sql = "UPDATE auth.api_keys SET revoked_at = clock_timestamp() WHERE tenant_id = $1 AND api_key_id = $2";
  await tx.execute(sql, [tenantId, keyId]);
  const event = create(ApiKeyRevokedSchema, { tenantId, apiKeyId: keyId });
  await enqueue(tx, "auth", {
    subject: `agentmesh.auth.v1.${tenantId}.key_revoked`,
    eventId: newId("evt"),
    tenantId,
    payload: toBinary(ApiKeyRevokedSchema, event),
  });
}

function inTime({ signal, deadline }: Call) {
  return { signal, deadline };
}
