import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import { PLATFORM_ADMIN } from "#platform/rpc/scopes.ts";

export function agentNameTaken(): AppError {
  return new AppError({
    code: Code.AlreadyExists,
    reason: "RESOURCE_EXISTS",
    message: "The tenant has an agent with this name.",
    facts: { resource_type: "agent" },
    violations: [{ field: "agent.name", description: "is the name of another agent" }],
  });
}

export function defaultAgentNeeded(): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "RESOURCE_IN_USE",
    message: "A tenant needs a default agent. Make another agent the default first.",
    facts: { resource_type: "agent" },
  });
}

export function firstTenantNeeded(): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "RESOURCE_IN_USE",
    message: "The installation's own tenant cannot be suspended or deleted: nobody could administer it then.",
    facts: { resource_type: "tenant" },
  });
}

/** tier, status and limits are the platform's to set. */
export function platformFields(fields: readonly string[]): AppError {
  return new AppError({
    code: Code.PermissionDenied,
    reason: "SCOPE_MISSING",
    message: `Only a platform administrator may change ${fields.join(", ")} of a tenant.`,
    facts: { scopes: PLATFORM_ADMIN },
  });
}

export function tenantSuspended(): AppError {
  return new AppError({ code: Code.PermissionDenied, reason: "TENANT_SUSPENDED", message: "The tenant is suspended." });
}

/** The agent was fine when it was written; the tenant's tier or limits have changed since. */
export function modelNotAllowed(agentId: string, model: string): AppError {
  return new AppError({
    code: Code.FailedPrecondition,
    reason: "AGENT_INACTIVE",
    message: `The tenant may not use the agent's model ${model} any more. Choose another one.`,
    facts: { agent_id: agentId, model },
  });
}

/** It was sealed under a root secret that is gone, or its row was altered. */
export function credentialUnreadable(provider: string): AppError {
  return new AppError({
    code: Code.Internal,
    reason: "INTERNAL",
    message: `The tenant's credential for ${provider} cannot be opened. Put it again.`,
  });
}

export function updateMaskInvalid(path: string, why: string): AppError {
  return new AppError({
    code: Code.InvalidArgument,
    reason: "UPDATE_MASK_INVALID",
    message: `update_mask: ${path} ${why}`,
    violations: [{ field: "update_mask", description: `${path} ${why}` }],
  });
}
