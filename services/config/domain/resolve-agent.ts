import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Agent, ModelChoice, ModelRoute } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { ResolveAgentResponseSchema } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import type { InputGuard, Tenant, TenantLimitsSchema } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { compileCondition } from "#platform/cel/condition.ts";
import { modelNotAllowed } from "../errors.ts";
import { enabledTools, withDefaults } from "./agent-rules.ts";
import { resolveApprovalPolicy } from "./approval-policy-rules.ts";
import { resolveCompaction } from "./compaction-rules.ts";
import { DEFAULT_SYSTEM_PROMPT } from "./default-agent.ts";
import { modelAllowed } from "./model-pattern.ts";
import { DEFAULT_PROVIDER, DEMO_PROVIDER, mayUse } from "./model-rules.ts";
import { allowedModels, tierLimits } from "./tier-limits.ts";

/** The demo provider has one model. */
const DEMO_MODEL = "demo";
/** How long events of ended runs are kept where the tenant has said nothing. */
const RUN_EVENT_DAYS = 30;
const FLAG: typeof InputGuard.FLAG = 2;

/**
 * The agent as it runs: agent over tenant over tier. A prompt and a template belong together, so that an agent with a
 * prompt of its own does not get its tenant's template. Tools that the tenant has switched off since the agent was written
 * are left out, and so are routes and fallbacks to models that it may not use any more. When that is the agent's own model
 * it is an error, for another model would be another agent.
 */
export function resolveAgent(
  stored: Agent,
  tenant: Tenant,
  ownCredentials: readonly string[],
): MessageInitShape<typeof ResolveAgentResponseSchema> {
  const agent = withDefaults(stored);
  const own = agent.systemPrompt !== "" || agent.promptTemplateId !== "";
  const prompt = own ? agent : tenant;
  const enabled = enabledTools(tenant);
  return {
    agent: {
      ...agent,
      ...modelsOf(agent, tenant),
      compactionConfig: compactionOf(agent, tenant),
      approvalPolicy: resolveApprovalPolicy(agent.approvalPolicy, tenant.approvalPolicy),
      systemPrompt: prompt.systemPrompt || (prompt.promptTemplateId === "" ? DEFAULT_SYSTEM_PROMPT : ""),
      promptTemplateId: prompt.promptTemplateId,
      tools: agent.tools.filter((tool) => enabled.includes(tool)),
      kbNamespaces: agent.kbNamespaces.length > 0 ? agent.kbNamespaces : tenant.kbNamespaces,
    },
    limits: resolveLimits(tenant),
    tier: tenant.tier,
    toolConfigsJson: JSON.stringify(tenant.toolConfigs ?? {}),
    inputGuard: tenant.inputGuard || FLAG,
    cannedAnswer: tenant.cannedAnswer,
    cachedAnswers: tenant.cachedAnswers,
    ownCredentials: [...ownCredentials],
    retention: {
      sessionDays: tenant.retention?.sessionDays ?? 0,
      runEventDays: tenant.retention?.runEventDays ?? RUN_EVENT_DAYS,
    },
  };
}

function modelsOf(agent: Agent, tenant: Tenant): Pick<Agent, "llmModel" | "fallbacks" | "routes"> {
  return {
    llmModel: modelOf(agent, tenant),
    fallbacks: usable(agent, tenant, agent.fallbacks),
    routes: usable(agent, tenant, agent.routes)
      .filter(compiles)
      .map((route) => ({ ...route, fallbacks: usable(agent, tenant, route.fallbacks) })),
  };
}

/** The choices whose models the tenant may use, with their providers. */
function usable<C extends ModelChoice | ModelRoute>(agent: Agent, tenant: Tenant, choices: readonly C[]): C[] {
  return choices
    .map((choice) => ({ ...choice, llmProvider: choice.llmProvider || agent.llmProvider }))
    .filter(({ llmProvider, llmModel }) => mayUse(tenant, llmProvider, llmModel));
}

/** False for a condition from before conditions were checked. */
function compiles({ condition }: ModelRoute): boolean {
  try {
    compileCondition(condition);
    return true;
  } catch {
    return false;
  }
}

/** A summary's model that the tenant may not use any more gives way to the run's own. */
function compactionOf({ compactionConfig, adapter, llmProvider }: Agent, tenant: Tenant) {
  const resolved = resolveCompaction(compactionConfig, adapter);
  return mayUse(tenant, llmProvider, resolved.summaryModel) ? resolved : { ...resolved, summaryModel: "" };
}

function modelOf(agent: Agent, tenant: Tenant): string {
  if (agent.llmProvider === DEMO_PROVIDER) return agent.llmModel || DEMO_MODEL;
  const allowed = allowedModels(tenant.tier, tenant.limits);
  const preferred =
    agent.llmModel || (agent.llmProvider === DEFAULT_PROVIDER ? tierLimits(tenant.tier).defaultModel : "");
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
