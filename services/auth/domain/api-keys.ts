import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type {
  ApiKey,
  CreateApiKeyResponseSchema,
  CreateTenantApiKeyResponseSchema,
  ListApiKeysRequest,
  ListApiKeysResponseSchema,
} from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import type { Once } from "#platform/postgres/answer-once.ts";
import type { Call } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { PLATFORM_ADMIN } from "#platform/rpc/scopes.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import { scopesNotHeld } from "../errors.ts";
import type { AuthEvents } from "../events.ts";
import type { ApiKeyStore, IssuedDesc } from "../store/api-key-store.ts";
import type { TenantStateStore } from "../store/tenant-state-store.ts";
import type { KeyDigester } from "./key-digest.ts";
import { newApiKey } from "./new-api-key.ts";
import { mayRevoke, ownKey, tenantKey, type WantedKey } from "./wanted-key.ts";

export interface ApiKeysDeps {
  readonly store: ApiKeyStore;
  readonly tenants: TenantStateStore;
  readonly digester: KeyDigester;
  readonly pageTokens: PageTokens;
  readonly events: AuthEvents;
  /** How long to wait for the event of a tenant that was just created. */
  readonly tenantWaitMs: number;
}

const DEFAULT_PAGE = 50;
const LARGEST_PAGE = 200;

/** The API keys of a tenant. A caller that is bound to a user sees and revokes that user's keys only. */
export class ApiKeys {
  readonly #deps: ApiKeysDeps;

  constructor(deps: ApiKeysDeps) {
    this.#deps = deps;
  }

  createOwn(call: Call, asked: ApiKey | undefined, once: Once<typeof CreateApiKeyResponseSchema>) {
    const { principal } = call;
    return this.#issue(call, principal.tenantId, ownKey(asked, principal, new Date()), once);
  }

  async createForTenant(
    call: Call,
    tenantId: string,
    asked: ApiKey | undefined,
    once: Once<typeof CreateTenantApiKeyResponseSchema>,
  ) {
    const wanted = tenantKey(asked, tenantId, call.principal, new Date());
    const status = await this.#deps.tenants.awaitStatus(tenantId, this.#deps.tenantWaitMs, call.signal);
    if (status === undefined || status === "deleted") throw notFound("tenant");
    return this.#issue(call, tenantId, wanted, once);
  }

  async get(call: Call, keyId: string): Promise<ApiKey> {
    return (await this.#deps.store.find(call, keyId, call.principal.userId)) ?? raise(notFound("api_key"));
  }

  async list(call: Call, request: ListApiKeysRequest): Promise<MessageInitShape<typeof ListApiKeysResponseSchema>> {
    const { store, pageTokens } = this.#deps;
    const { tenantId: tenant, userId } = call.principal;
    const { showRevoked, pageToken } = request;
    const page = { tenant, filter: ["ListApiKeys", showRevoked, userId ?? null] };
    const [ms, keyId] = pageToken === "" ? [] : (pageTokens.open(pageToken, page) as [number, string]);
    const after = ms === undefined || keyId === undefined ? undefined : { createdAt: new Date(ms), keyId };
    const size = Math.min(request.pageSize || DEFAULT_PAGE, LARGEST_PAGE);
    // One more than is shown tells whether there is a next page.
    const keys = await store.list(call, { userId, showRevoked }, after, size + 1);
    const apiKeys = keys.slice(0, size);
    const last = apiKeys.at(-1);
    if (keys.length <= size || last?.createTime === undefined) return { apiKeys };
    const cursor = [timestampMs(last.createTime), last.apiKeyId];
    return { apiKeys, nextPageToken: pageTokens.seal({ ...page, cursor }) };
  }

  async revoke<O extends DescMessage>(call: Call, keyId: string, once: Once<O>): Promise<void> {
    const { principal } = call;
    const revoked = await this.#deps.store.revoke(call, keyId, once, (key) => {
      if (key === undefined || (principal.userId !== undefined && key.userId !== principal.userId)) {
        throw notFound("api_key");
      }
      if (mayRevoke(key.scopes, principal)) return;
      throw scopesNotHeld([PLATFORM_ADMIN], "Only a platform administrator can revoke an administrator's key.");
    });
    if (revoked) this.#deps.events.keyRevoked({ tenantId: principal.tenantId, keyId });
  }

  async #issue<O extends IssuedDesc>(
    call: Call,
    tenantId: string,
    wanted: WantedKey,
    once: Once<O>,
  ): Promise<MessageShape<O>> {
    const parts = newApiKey();
    const key = { ...wanted, parts, digest: this.#deps.digester.digest(parts) };
    const issued = await this.#deps.store.create(call, tenantId, key, once);
    if (issued.apiKey?.apiKeyId === parts.keyId) this.#deps.events.keyCreated({ tenantId, keyId: parts.keyId });
    return issued;
  }
}
