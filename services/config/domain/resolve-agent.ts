import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Agent } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { ResolveAgentResponseSchema } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import type { Tenant, TenantLimitsSchema } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { modelNotAllowed } from "../errors.ts";
import { DEFAULT_PROVIDER, enabledTools, withDefaults } from "./agent-rules.ts";
import { DEFAULT_SYSTEM_PROMPT } from "./default-agent.ts";
import { modelAllowed } from "./model-pattern.ts";
import { allowedModels, tierLimits } from "./tier-limits.ts";

/** The demo provider has one model. */
const DEMO_MODEL = "demo";

/**
 * The agent as it runs: agent over tenant over tier. A prompt and a template belong together, so that an agent with a
 * prompt of its own does not get its tenant's template. Tools that the tenant has switched off since the agent was written
 * are left out; a model that it may not use any more is an error, for another model would be another agent.
 */
export function resolveAgent(agent: Agent, tenant: Tenant): MessageInitShape<typeof ResolveAgentResponseSchema> {
  const own = agent.systemPrompt !== "" || agent.promptTemplateId !== "";
  const prompt = own ? agent : tenant;
  const enabled = enabledTools(tenant);
  return {
    agent: {
      ...withDefaults(agent),
      llmModel: modelOf(agent, tenant),
      systemPrompt: prompt.systemPrompt || (prompt.promptTemplateId === "" ? DEFAULT_SYSTEM_PROMPT : ""),
      promptTemplateId: prompt.promptTemplateId,
      tools: agent.tools.filter((tool) => enabled.includes(tool)),
      kbNamespaces: agent.kbNamespaces.length > 0 ? agent.kbNamespaces : tenant.kbNamespaces,
    },
    limits: resolveLimits(tenant),
    tier: tenant.tier,
    toolConfigsJson: JSON.stringify(tenant.toolConfigs ?? {}),
  };
}

function modelOf(agent: Agent, tenant: Tenant): string {
  if ((agent.llmProvider || DEFAULT_PROVIDER) !== DEFAULT_PROVIDER) return agent.llmModel || DEMO_MODEL;
  const allowed = allowedModels(tenant.tier, tenant.limits);
  const preferred = agent.llmModel || tierLimits(tenant.tier).defaultModel;
  if (modelAllowed(allowed, preferred)) return preferred;
  // The tenant's own list may leave out the tier's default; then its first whole name is the default.
  const named = agent.llmModel === "" ? allowed.find((pattern) => !pattern.includes("*")) : undefined;
  if (named === undefined) throw modelNotAllowed(agent.agentId, preferred);
  return named;
}

function resolveLimits({ tier, limits }: Tenant): MessageInitShape<typeof TenantLimitsSchema> {
  const standard = tierLimits(tier);
  return {
    maxSessionsPerDay: limits?.maxSessionsPerDay ?? standard.maxSessionsPerDay,
    maxMessagesPerSession: limits?.maxMessagesPerSession ?? standard.maxMessagesPerSession,
    maxTokensPerMonth: limits?.maxTokensPerMonth ?? standard.maxTokensPerMonth,
    maxConcurrentSessions: limits?.maxConcurrentSessions ?? standard.maxConcurrentSessions,
    maxToolCallsPerMinute: limits?.maxToolCallsPerMinute ?? standard.maxToolCallsPerMinute,
    maxMessageCharacters: limits?.maxMessageCharacters ?? standard.maxMessageCharacters,
    allowedModels: [...allowedModels(tier, limits)],
  };
}
