import { ApiKeyService } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { TokenService } from "#gen/agentmesh/auth/v1/token_service_pb.ts";
import type { Subscription } from "#platform/bus/bus.ts";
import type { Module, Running } from "#platform/module/module.ts";
import { bootstrapAdminKey } from "./bootstrap-admin-key.ts";
import { type AuthConfig, readAuthConfig } from "./config.ts";
import { formatApiKey } from "./domain/api-key-format.ts";
import { ApiKeys } from "./domain/api-keys.ts";
import { createKeyDigester } from "./domain/key-digest.ts";
import { newApiKey } from "./domain/new-api-key.ts";
import { createResponseEnvelope } from "./domain/response-envelope.ts";
import { UseLog } from "./domain/use-log.ts";
import { CredentialVerifier } from "./domain/verify-credential.ts";
import { createAuthEvents } from "./events.ts";
import { followTenants } from "./follow-tenants.ts";
import { apiKeyHandler, tokenHandler } from "./handler.ts";
import { ApiKeyStore } from "./store/api-key-store.ts";
import { CredentialStore } from "./store/credential-store.ts";
import { TenantStateStore } from "./store/tenant-state-store.ts";

/** Credentials and who they speak for. */
export const auth: Module<AuthConfig> = {
  name: "auth",
  services: [ApiKeyService, TokenService],
  schema: { name: "auth", migrations: new URL("./store/migrations/", import.meta.url) },
  config: readAuthConfig,
  create(config, { mode, dataDir, log, metrics, database, bus, rootSecret, pageTokens }): Running {
    const events = createAuthEvents(log, metrics);
    const digester = createKeyDigester(rootSecret);
    const tenants = new TenantStateStore(database);
    const credentials = new CredentialStore(database);
    const uses = new UseLog((batch) => credentials.markUsed(batch), events);
    const store = new ApiKeyStore(database, createResponseEnvelope(rootSecret));
    const keys = new ApiKeys({ store, tenants, digester, pageTokens, events, tenantWaitMs: config.tenantWaitMs });
    const verifier = new CredentialVerifier({ store: credentials, digester, uses, events });
    let following: Subscription | undefined;
    return {
      routes(router) {
        router.service(ApiKeyService, apiKeyHandler(keys, log));
        router.service(TokenService, tokenHandler(verifier));
      },
      async start(signal) {
        // A distributed mesh keeps nothing on a machine: its replicas would each have a key of their own.
        const keep = mode === "embedded" ? dataDir : undefined;
        await bootstrapAdminKey({ database, digester, events, given: config.adminKey, dataDir: keep, signal });
        following = await followTenants(bus, tenants);
        uses.start(config.useFlushMs);
      },
      ready: () => following !== undefined,
      async stop() {
        await following?.unsubscribe();
        await uses.stop();
      },
    };
  },
};

/** A new key of the form that AGENTMESH_ADMIN_KEY must have. It works once a mesh has been started with it. */
export function newAdminKey(): string {
  return formatApiKey(newApiKey());
}
