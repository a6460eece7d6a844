import type { Agent } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { Tenant } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import { HARMLESS_TOOLS } from "./default-agent.ts";
import { modelAllowed } from "./model-pattern.ts";
import { Violations } from "./text-rules.ts";
import { allowedModels } from "./tier-limits.ts";
import type { MaskRules } from "./update-mask.ts";

/** Providers that agents may name. The demo model costs nothing and is open to every tier. */
const PROVIDERS = ["anthropic", "demo"];

export const DEFAULT_PROVIDER = "anthropic";
const DEFAULT_MAX_TOKENS = 4096;
const DEFAULT_MAX_ITERATIONS = 20;

/** The names by which models can call tools (Tool.name). */
export const TOOL_NAME = /^[A-Za-z0-9_-]{1,64}$/;

export const AGENT_MASK: MaskRules = {
  updatable: new Set([
    "name",
    "description",
    "llm_provider",
    "llm_model",
    "max_tokens",
    "temperature",
    "max_iterations",
    "require_done_tool",
    "system_prompt",
    "prompt_template_id",
    "tools",
    "kb_namespaces",
    "compaction_config",
    "adapter",
    "plugins",
    "routes",
    "is_default",
  ]),
  ignored: new Set(["agent_id", "etag"]),
};

/** The tools that a tenant's agents may use. */
export function enabledTools(tenant: Tenant): readonly string[] {
  return tenant.enabledTools.length > 0 ? tenant.enabledTools : HARMLESS_TOOLS;
}

/**
 * The agent with the document's defaults where it leaves them open. The model stays open, for the tier decides each time;
 * so does the temperature, which current models refuse.
 */
export function withDefaults(agent: Agent): Agent {
  return {
    ...agent,
    llmProvider: agent.llmProvider || DEFAULT_PROVIDER,
    maxTokens: agent.maxTokens ?? DEFAULT_MAX_TOKENS,
    maxIterations: agent.maxIterations ?? DEFAULT_MAX_ITERATIONS,
  };
}

/**
 * Throws FIELD_INVALID naming every field that is wrong for an agent of this tenant. Lengths and ranges are the
 * contract's and have been checked. With `changed` only these fields are looked at, so that an agent whose model or tools
 * the tenant has lost can still be renamed.
 */
export function checkAgent(agent: Agent, tenant: Tenant, changed: ReadonlySet<string> = AGENT_MASK.updatable): void {
  const wrong = new Violations("agent");
  const checks: Record<string, () => void> = {
    name: () =>
      agent.name.trim() === "" ? wrong.add("name", "an agent needs a name") : wrong.line("name", agent.name),
    description: () => wrong.text("description", agent.description),
    llm_provider() {
      if (!PROVIDERS.includes(agent.llmProvider)) wrong.add("llm_provider", `must be one of ${PROVIDERS.join(", ")}`);
    },
    llm_model: () => checkModel(agent, tenant, wrong),
    system_prompt: () => wrong.text("system_prompt", agent.systemPrompt),
    prompt_template_id: () => wrong.line("prompt_template_id", agent.promptTemplateId),
    tools: () => checkTools(agent, tenant, wrong),
    kb_namespaces: () => wrong.lines("kb_namespaces", agent.kbNamespaces),
    compaction_config: () => wrong.object("compaction_config", agent.compactionConfig),
    adapter: () => wrong.line("adapter", agent.adapter),
    plugins: () => wrong.lines("plugins", agent.plugins),
    routes() {
      for (const [i, route] of agent.routes.entries()) wrong.object(`routes[${i}]`, route);
    },
  };
  // Whether a model is allowed depends on the provider too.
  const looked = changed.has("llm_provider") ? new Set([...changed, "llm_model"]) : changed;
  for (const [field, check] of Object.entries(checks)) if (looked.has(field)) check();
  if (wrong.found.length > 0) throw invalidFields(...wrong.found);
}

function checkModel(agent: Agent, tenant: Tenant, wrong: Violations): void {
  wrong.line("llm_model", agent.llmModel);
  if (agent.llmModel === "" || agent.llmProvider !== DEFAULT_PROVIDER) return;
  const allowed = allowedModels(tenant.tier, tenant.limits);
  if (modelAllowed(allowed, agent.llmModel)) return;
  wrong.add("llm_model", `the tenant may use ${allowed.join(", ")}`);
}

function checkTools(agent: Agent, tenant: Tenant, wrong: Violations): void {
  const enabled = enabledTools(tenant);
  for (const [i, tool] of agent.tools.entries()) {
    if (!TOOL_NAME.test(tool)) wrong.add(`tools[${i}]`, "is not a tool's name: letters, digits, _ and -");
    else if (!enabled.includes(tool)) wrong.add(`tools[${i}]`, "is not among the tenant's enabled_tools");
  }
}
