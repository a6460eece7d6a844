import { AgentConfigService, AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { TenantSchema, TenantService } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { UserProfileService } from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import type { Subscription } from "#platform/bus/bus.ts";
import type { Module, Running } from "#platform/module/module.ts";
import { createVault } from "#platform/secrets/vault.ts";
import { bootstrapFirstTenant } from "./bootstrap-first-tenant.ts";
import { type ConfigConfig, readConfigConfig } from "./config.ts";
import { Agents } from "./domain/agents.ts";
import { ModelCredentials } from "./domain/model-credentials.ts";
import { Tenants } from "./domain/tenants.ts";
import { UserProfiles } from "./domain/user-profiles.ts";
import { createConfigEvents } from "./events.ts";
import {
  agentHandler,
  modelCredentialHandler,
  resolutionHandler,
  tenantHandler,
  userProfileHandler,
} from "./handler.ts";
import { Resolution } from "./resolution.ts";
import { ConfigStore } from "./store/config-store.ts";

/** Tenants, and the agents that they configure. */
export const config: Module<ConfigConfig> = {
  name: "config",
  services: [TenantService, AgentConfigService, UserProfileService, ModelCredentialService, ResolutionService],
  schema: { name: "config", migrations: new URL("./store/migrations/", import.meta.url) },
  config: readConfigConfig,
  create(
    { firstTenantName, resolutionTtlMs },
    { log, metrics, database, bus, cache, pageTokens, rootSecret },
  ): Running {
    const events = createConfigEvents(log, metrics);
    const store = new ConfigStore(database);
    const resolution = new Resolution({ store, cache, events, ttlMs: resolutionTtlMs });
    const deps = { store, pageTokens, events, invalidate: (tenantId: string) => resolution.invalidate(tenantId) };
    const tenants = new Tenants({ ...deps, schema: TenantSchema });
    const agents = new Agents({ ...deps, schema: AgentSchema });
    const vault = createVault(rootSecret, "model credential");
    const credentials = new ModelCredentials({ ...deps, vault });
    const profiles = new UserProfiles({
      store,
      events,
      invalidate: (tenantId) => resolution.invalidateProfiles(tenantId),
    });
    let following: Subscription[] | undefined;
    return {
      routes(router) {
        router.service(TenantService, tenantHandler(tenants, log));
        router.service(AgentConfigService, agentHandler(agents, log));
        router.service(UserProfileService, userProfileHandler(profiles, log));
        router.service(ModelCredentialService, modelCredentialHandler(credentials, log));
        router.service(ResolutionService, resolutionHandler(resolution));
      },
      async start(signal) {
        await bootstrapFirstTenant(store, events, firstTenantName, signal);
        following = await resolution.follow(bus);
      },
      ready: () => following !== undefined,
      async stop() {
        await Promise.all((following ?? []).map((subscription) => subscription.unsubscribe()));
      },
    };
  },
};
