import { fileURLToPath } from "node:url";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Agent, AgentConfigService, type AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { type Tenant, type TenantSchema, TenantService } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { UserProfileService } from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import { EmbeddedCache } from "#platform/redis/embedded-cache.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { PLATFORM_ADMIN, TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { FIRST_TENANT_ID } from "#platform/tenancy/first-tenant.ts";
import { type TestDatabase, testDatabase } from "#platform/testing/private-postgres.ts";
import {
  callAs,
  principalOf,
  type ServiceUnderTestOptions,
  serviceUnderTest,
} from "#platform/testing/service-under-test.ts";
import { config } from "../index.ts";

type AskedAgent = Omit<MessageInitShape<typeof AgentSchema>, "$typeName">;
type AskedTenant = Omit<MessageInitShape<typeof TenantSchema>, "$typeName">;

/** A database with config's tables. */
export function configDatabase(): Promise<TestDatabase> {
  const dir = fileURLToPath(new URL("../store/migrations/", import.meta.url));
  return testDatabase({ services: [{ schema: "config", dir }] });
}

export const platformAdmin = principalOf(FIRST_TENANT_ID, [...TENANT_SCOPES, PLATFORM_ADMIN]);

/** config, started, with a cache of its own unless one is given. */
export async function openConfig(options: ServiceUnderTestOptions) {
  const service = await serviceUnderTest(config, { cache: new EmbeddedCache({}), ...options });
  const tenants = service.client(TenantService);
  const agents = service.client(AgentConfigService);
  const resolution = service.client(ResolutionService);
  return {
    service,
    tenants,
    agents,
    profiles: service.client(UserProfileService),
    credentials: service.client(ModelCredentialService),
    bus: service.bus,
    logged: service.logged,
    [Symbol.asyncDispose]: service[Symbol.asyncDispose],
    /** A new tenant, and a caller of it with every tenant scope. */
    async tenant(asked: AskedTenant = {}): Promise<Principal> {
      const { tenant } = await tenants.createTenant({ tenant: { name: "Acme", ...asked } }, callAs(platformAdmin));
      return principalOf(tenant?.tenantId ?? "", TENANT_SCOPES);
    },
    async read(caller: Principal, tenantId = "me"): Promise<Tenant> {
      return present((await tenants.getTenant({ tenantId }, callAs(caller))).tenant);
    },
    async change(caller: Principal, tenant: AskedTenant, paths: string[] = [], requestId = ""): Promise<Tenant> {
      const asked = { tenant: { tenantId: "me", ...tenant }, updateMask: { paths }, requestId };
      return present((await tenants.updateTenant(asked, callAs(caller))).tenant);
    },
    async add(caller: Principal, agent: AskedAgent = {}, requestId = ""): Promise<Agent> {
      const asked = { tenantId: "me", agent: { name: "Helper", ...agent }, requestId };
      return present((await agents.createAgent(asked, callAs(caller))).agent);
    },
    async get(caller: Principal, agentId: string, tenantId = "me"): Promise<Agent> {
      return present((await agents.getAgent({ tenantId, agentId }, callAs(caller))).agent);
    },
    async update(caller: Principal, agent: AskedAgent, paths: string[] = [], requestId = ""): Promise<Agent> {
      const asked = { tenantId: "me", agent, updateMask: { paths }, requestId };
      return present((await agents.updateAgent(asked, callAs(caller))).agent);
    },
    remove: (caller: Principal, agentId: string, more: { etag?: string; requestId?: string } = {}) =>
      agents.deleteAgent({ tenantId: "me", agentId, ...more }, callAs(caller)),
    async list(caller: Principal): Promise<Agent[]> {
      return (await agents.listAgents({ tenantId: "me", pageSize: 200 }, callAs(caller))).agents;
    },
    resolve: (caller: Principal, agentId = "", endUserId = "") =>
      resolution.resolveAgent({ agentId, endUserId }, callAs(caller)),
  };
}

export type OpenConfig = Awaited<ReturnType<typeof openConfig>>;

function present<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("the answer has no resource");
  return value;
}

/** Waits until an answer is as expected. Fails when it does not become so. */
export async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  for (let i = 0; !(await holds()); i++) {
    if (i === 500) throw new Error(`waited too long: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
