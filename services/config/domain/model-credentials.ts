import type {
  DeleteModelCredentialRequest,
  DeleteModelCredentialResponseSchema,
  ModelCredential,
  PutModelCredentialResponseSchema,
} from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import type { Once } from "#platform/postgres/answer-once.ts";
import type { Call } from "#platform/rpc/call.ts";
import { etagMismatch, invalidFields, notFound, raise } from "#platform/rpc/errors.ts";
import { type SecretOwner, type Vault, VaultError } from "#platform/secrets/vault.ts";
import type { TenantChoice } from "#platform/tenancy/resolve-tenant.ts";
import { credentialUnreadable, tenantSuspended } from "../errors.ts";
import type { ChangeKind, ConfigEvents } from "../events.ts";
import type { ConfigStore } from "../store/config-store.ts";
import type { ConfigUnit } from "../store/config-unit.ts";
import type { StoredCredential } from "../store/model-credentials.ts";
import { checkCredential, keySuffix, takesKeys } from "./credential-rules.ts";
import { DELETED, SUSPENDED } from "./tenant-rules.ts";

export interface ModelCredentialsDeps {
  readonly store: ConfigStore;
  readonly vault: Vault;
  readonly events: ConfigEvents;
  /** Resolves when no process serves what was resolved before. */
  invalidate(tenantId: string): Promise<void>;
}

/** How often the use of a credential is written to the audit at most; what it was used for is in the ledger of usage. */
const AUDIT_HOURS = 1;

/** A tenant's own keys for model providers. */
export class ModelCredentials {
  readonly #deps: ModelCredentialsDeps;

  constructor(deps: ModelCredentialsDeps) {
    this.#deps = deps;
  }

  list(call: Call, choice: TenantChoice): Promise<ModelCredential[]> {
    return this.#deps.store.read(call, choice, "model_credential.listed", async (unit) => {
      await assertTenant(unit);
      return (await unit.credentials.list()).map(({ credential }) => credential);
    });
  }

  put(
    call: Call,
    { tenantId }: TenantChoice,
    asked: ModelCredential | undefined,
    once: Once<typeof PutModelCredentialResponseSchema>,
  ) {
    const { store, vault } = this.#deps;
    if (asked === undefined) throw invalidFields({ field: "credential", description: "is required" });
    checkCredential(asked);
    const { llmProvider, apiKey, baseUrl } = asked;
    // The digest of a request is stored, and this one holds the key.
    const keyed = { ...once, request: vault.digest(once.request) };
    return this.#changing(tenantId, (note) =>
      store.change(call, tenantId, keyed, async (unit) => {
        await assertTenant(unit);
        const current = await unit.credentials.locked(llmProvider);
        if (asked.etag !== "" && asked.etag !== current?.credential.etag) throw etagMismatch();
        if (current !== undefined && this.#holds(tenantId, current, asked)) return { credential: current.credential };
        const owner = ownerOf(tenantId, llmProvider, baseUrl);
        const sealedKey = vault.seal(apiKey, owner);
        const saved = await unit.credentials.put({ llmProvider, sealedKey, baseUrl, keySuffix: keySuffix(apiKey) });
        await unit.changed("credential");
        const kind = current === undefined ? "created" : "updated";
        note(kind);
        await unit.audit(`model_credential.${kind}`, llmProvider, {
          version: saved.version,
          own_server: baseUrl !== "",
        });
        return { credential: saved.credential };
      }),
    );
  }

  delete(
    call: Call,
    { tenantId }: TenantChoice,
    { llmProvider, etag }: DeleteModelCredentialRequest,
    once: Once<typeof DeleteModelCredentialResponseSchema>,
  ) {
    return this.#changing(tenantId, (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        await assertTenant(unit);
        if (!takesKeys(llmProvider)) throw notFound("model_credential");
        const current = (await unit.credentials.locked(llmProvider)) ?? raise(notFound("model_credential"));
        if (etag !== "" && etag !== current.credential.etag) throw etagMismatch();
        await unit.credentials.delete(llmProvider);
        await unit.changed("credential");
        note("deleted");
        await unit.audit("model_credential.deleted", llmProvider);
        return {};
      }),
    );
  }

  /** The key itself, of the caller's tenant. */
  reveal(call: Call, llmProvider: string): Promise<{ apiKey: string; baseUrl: string; version: bigint }> {
    const { store, vault, events } = this.#deps;
    const { tenantId } = call.principal;
    if (tenantId === "" || !takesKeys(llmProvider)) throw notFound("model_credential");
    return store.write(call, tenantId, async (unit) => {
      await assertTenant(unit, "active");
      const found = (await unit.credentials.get(llmProvider)) ?? raise(notFound("model_credential"));
      const { credential, version, sealedKey } = found;
      const apiKey = this.#opened(tenantId, found);
      if (apiKey === undefined) {
        events.credentialUnreadable(tenantId, llmProvider);
        throw credentialUnreadable(llmProvider);
      }
      if (await unit.credentials.auditDue(llmProvider, AUDIT_HOURS)) {
        await unit.audit("model_credential.used", llmProvider, { version });
        if (!vault.isCurrent(sealedKey)) {
          const owner = ownerOf(tenantId, llmProvider, credential.baseUrl);
          await unit.credentials.reseal(llmProvider, version, vault.seal(apiKey, owner));
        }
      }
      return { apiKey, baseUrl: credential.baseUrl, version: BigInt(version) };
    });
  }

  #holds(tenantId: string, current: StoredCredential, { apiKey, baseUrl }: ModelCredential): boolean {
    return current.credential.baseUrl === baseUrl && this.#opened(tenantId, current) === apiKey;
  }

  #opened(tenantId: string, { credential, sealedKey }: StoredCredential): string | undefined {
    try {
      return this.#deps.vault.open(sealedKey, ownerOf(tenantId, credential.llmProvider, credential.baseUrl));
    } catch (error) {
      if (error instanceof VaultError) return undefined;
      throw error;
    }
  }

  /** Invalidates after a change and before its answer, so that nobody who has the answer is served the old state. */
  async #changing<T>(tenantId: string, change: (note: (kind: ChangeKind) => void) => Promise<T>): Promise<T> {
    const changed: ChangeKind[] = [];
    const answer = await change((kind) => changed.push(kind));
    for (const kind of changed) {
      await this.#deps.invalidate(tenantId);
      this.#deps.events.credentialChanged(kind, tenantId);
    }
    return answer;
  }
}

/** The server is a part of it, so that whoever can write rows cannot have a key sent elsewhere. */
function ownerOf(tenantId: string, llmProvider: string, baseUrl: string): SecretOwner {
  return ["model credential", tenantId, llmProvider, baseUrl];
}

async function assertTenant(unit: ConfigUnit, active?: "active"): Promise<void> {
  const tenant = await unit.tenant();
  if (tenant === undefined || tenant.status === DELETED) throw notFound("tenant");
  if (active && tenant.status === SUSPENDED) throw tenantSuspended();
}
