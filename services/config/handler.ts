import type { ServiceImpl } from "@connectrpc/connect";
import { AgentConfigService } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import { ModelCredentialService } from "#gen/agentmesh/config/v1/model_credential_service_pb.ts";
import type { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { TenantService } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { UserProfileService } from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import { onceOf } from "#platform/postgres/answer-once.ts";
import { callOf } from "#platform/rpc/call.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { resolveTenant } from "#platform/tenancy/resolve-tenant.ts";
import type { Agents } from "./domain/agents.ts";
import type { ModelCredentials } from "./domain/model-credentials.ts";
import type { Tenants } from "./domain/tenants.ts";
import type { UserProfiles } from "./domain/user-profiles.ts";
import type { Resolution } from "./resolution.ts";

export function tenantHandler(tenants: Tenants, log: Log): ServiceImpl<typeof TenantService> {
  const { method } = TenantService;
  return {
    createTenant: (request, context) =>
      tenants.create(callOf(context), request.tenant, onceOf(method.createTenant, request)),
    async getTenant(request, context) {
      const call = callOf(context);
      return { tenant: await tenants.get(call, resolveTenant(call, request.tenantId, log)) };
    },
    listTenants: (request, context) => tenants.list(callOf(context), request),
    updateTenant(request, context) {
      const call = callOf(context);
      const tenantId = request.tenant?.tenantId ?? "";
      if (tenantId === "") throw invalidFields({ field: "tenant.tenant_id", description: "is required" });
      return tenants.update(call, resolveTenant(call, tenantId, log), request, onceOf(method.updateTenant, request));
    },
    deleteTenant(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return tenants.delete(call, choice, request, onceOf(method.deleteTenant, request));
    },
  };
}

export function agentHandler(agents: Agents, log: Log): ServiceImpl<typeof AgentConfigService> {
  const { method } = AgentConfigService;
  return {
    createAgent(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return agents.create(call, choice, request.agent, onceOf(method.createAgent, request));
    },
    async getAgent(request, context) {
      const call = callOf(context);
      return { agent: await agents.get(call, resolveTenant(call, request.tenantId, log), request.agentId) };
    },
    listAgents(request, context) {
      const call = callOf(context);
      return agents.list(call, resolveTenant(call, request.tenantId, log), request);
    },
    updateAgent(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return agents.update(call, choice, request, onceOf(method.updateAgent, request));
    },
    deleteAgent(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return agents.delete(call, choice, request, onceOf(method.deleteAgent, request));
    },
  };
}

export function userProfileHandler(profiles: UserProfiles, log: Log): ServiceImpl<typeof UserProfileService> {
  const { method } = UserProfileService;
  return {
    async getUserProfile(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return { profile: await profiles.get(call, choice, request.endUserId) };
    },
    putUserProfile(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return profiles.put(call, choice, request.profile, onceOf(method.putUserProfile, request));
    },
    deleteUserProfile(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return profiles.delete(call, choice, request, onceOf(method.deleteUserProfile, request));
    },
  };
}

export function modelCredentialHandler(
  credentials: ModelCredentials,
  log: Log,
): ServiceImpl<typeof ModelCredentialService> {
  const { method } = ModelCredentialService;
  return {
    async listModelCredentials(request, context) {
      const call = callOf(context);
      return { credentials: await credentials.list(call, resolveTenant(call, request.tenantId, log)) };
    },
    putModelCredential(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return credentials.put(call, choice, request.credential, onceOf(method.putModelCredential, request));
    },
    deleteModelCredential(request, context) {
      const call = callOf(context);
      const choice = resolveTenant(call, request.tenantId, log);
      return credentials.delete(call, choice, request, onceOf(method.deleteModelCredential, request));
    },
    revealModelCredential: (request, context) => credentials.reveal(callOf(context), request.llmProvider),
  };
}

export function resolutionHandler(resolution: Resolution): ServiceImpl<typeof ResolutionService> {
  return {
    resolveAgent: (request, context) => resolution.resolve(callOf(context), request),
  };
}
