import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type ModelCredential, ModelCredentialSchema } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";

interface CredentialRow {
  readonly llm_provider: string;
  readonly version: number;
  readonly sealed_key: Buffer;
  readonly base_url: string;
  readonly key_suffix: string;
  readonly created_at: Date;
  readonly updated_at: Date;
}

/** A credential as it is stored. */
export interface StoredCredential {
  /** As it may be shown. */
  readonly credential: ModelCredential;
  readonly version: number;
  readonly sealedKey: Uint8Array;
}

/** A credential to be stored. */
export interface SealedCredential {
  readonly llmProvider: string;
  readonly sealedKey: Uint8Array;
  readonly baseUrl: string;
  readonly keySuffix: string;
}

const COLUMNS = "llm_provider, version, sealed_key, base_url, key_suffix, created_at, updated_at";

/** One tenant's credentials for model providers inside a transaction. */
export class ModelCredentialTable {
  readonly #tx: Tx;
  readonly #tenantId: string;

  constructor(tx: Tx, tenantId: string) {
    this.#tx = tx;
    this.#tenantId = tenantId;
  }

  async list(): Promise<StoredCredential[]> {
    const sql = `SELECT ${COLUMNS} FROM config.model_credentials
      WHERE tenant_id = $1 AND sealed_key IS NOT NULL ORDER BY llm_provider`;
    return (await this.#tx.query<CredentialRow>(sql, [this.#tenantId])).map(stored);
  }

  async get(llmProvider: string): Promise<StoredCredential | undefined> {
    const sql = `SELECT ${COLUMNS} FROM config.model_credentials
      WHERE tenant_id = $1 AND llm_provider = $2 AND sealed_key IS NOT NULL`;
    const row = await this.#tx.one<CredentialRow>(sql, [this.#tenantId, llmProvider]);
    return row && stored(row);
  }

  /** The credential for a change: other changes of it wait for this one, whether it exists or not. */
  async locked(llmProvider: string): Promise<StoredCredential | undefined> {
    await this.#tx.lockKey("config.model_credentials", this.#tenantId, llmProvider);
    return this.get(llmProvider);
  }

  async put({ llmProvider, sealedKey, baseUrl, keySuffix }: SealedCredential): Promise<StoredCredential> {
    const sql = `INSERT INTO config.model_credentials AS c
        (tenant_id, llm_provider, version, sealed_key, base_url, key_suffix) VALUES ($1, $2, 1, $3, $4, $5)
      ON CONFLICT (tenant_id, llm_provider) DO UPDATE
        SET sealed_key = excluded.sealed_key, base_url = excluded.base_url, key_suffix = excluded.key_suffix,
          version = c.version + 1, updated_at = clock_timestamp(), audited_at = NULL,
          created_at = CASE WHEN c.sealed_key IS NULL THEN clock_timestamp() ELSE c.created_at END
      RETURNING ${COLUMNS}`;
    const params = [this.#tenantId, llmProvider, sealedKey, baseUrl, keySuffix];
    const [row] = await this.#tx.query<CredentialRow>(sql, params);
    if (row === undefined) throw new Error("a credential was written and is not there");
    return stored(row);
  }

  /** The same key sealed anew; nothing that is kept for it ends. */
  async reseal(llmProvider: string, version: number, sealedKey: Uint8Array): Promise<void> {
    const sql = `UPDATE config.model_credentials SET sealed_key = $4
      WHERE tenant_id = $1 AND llm_provider = $2 AND version = $3 AND sealed_key IS NOT NULL`;
    await this.#tx.execute(sql, [this.#tenantId, llmProvider, version, sealedKey]);
  }

  /** Forgets the key; its version stays. */
  async delete(llmProvider: string): Promise<void> {
    const sql = `UPDATE config.model_credentials
      SET sealed_key = NULL, base_url = '', key_suffix = '', version = version + 1, updated_at = clock_timestamp()
      WHERE tenant_id = $1 AND llm_provider = $2`;
    await this.#tx.execute(sql, [this.#tenantId, llmProvider]);
  }

  /** Whether a use is to be written to the audit now: true once in `hours` for a credential, whoever asks. */
  async auditDue(llmProvider: string, hours: number): Promise<boolean> {
    const due = `tenant_id = $1 AND llm_provider = $2
      AND (audited_at IS NULL OR audited_at < clock_timestamp() - make_interval(hours => $3))`;
    const params = [this.#tenantId, llmProvider, hours];
    // Asked first, so that the calls in between write and lock nothing.
    const [row] = await this.#tx.query(`SELECT 1 FROM config.model_credentials WHERE ${due}`, params);
    if (row === undefined) return false;
    const sql = `UPDATE config.model_credentials SET audited_at = clock_timestamp() WHERE ${due}`;
    return (await this.#tx.execute(sql, params)) === 1;
  }
}

function stored(row: CredentialRow): StoredCredential {
  const credential = create(ModelCredentialSchema, {
    llmProvider: row.llm_provider,
    baseUrl: row.base_url,
    keySuffix: row.key_suffix,
    etag: `v${row.version}`,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
  });
  return { credential, version: row.version, sealedKey: row.sealed_key };
}
