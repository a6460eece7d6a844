import { AgentConfigService, AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { TenantSchema, TenantService } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import type { Subscription } from "#platform/bus/bus.ts";
import type { Module, Running } from "#platform/module/module.ts";
import { bootstrapFirstTenant } from "./bootstrap-first-tenant.ts";
import { type ConfigConfig, readConfigConfig } from "./config.ts";
import { Agents } from "./domain/agents.ts";
import { Tenants } from "./domain/tenants.ts";
import { createConfigEvents } from "./events.ts";
import { agentHandler, resolutionHandler, tenantHandler } from "./handler.ts";
import { Resolution } from "./resolution.ts";
import { ConfigStore } from "./store/config-store.ts";

/** Tenants, and the agents that they configure. */
export const config: Module<ConfigConfig> = {
  name: "config",
  services: [TenantService, AgentConfigService, ResolutionService],
  schema: { name: "config", migrations: new URL("./store/migrations/", import.meta.url) },
  config: readConfigConfig,
  create({ firstTenantName, resolutionTtlMs }, { log, metrics, database, bus, cache, pageTokens }): Running {
    const events = createConfigEvents(log, metrics);
    const store = new ConfigStore(database);
    const resolution = new Resolution({ store, cache, events, ttlMs: resolutionTtlMs });
    const deps = { store, pageTokens, events, invalidate: (tenantId: string) => resolution.invalidate(tenantId) };
    const tenants = new Tenants({ ...deps, schema: TenantSchema });
    const agents = new Agents({ ...deps, schema: AgentSchema });
    let following: Subscription[] | undefined;
    return {
      routes(router) {
        router.service(TenantService, tenantHandler(tenants, log));
        router.service(AgentConfigService, agentHandler(agents, log));
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
