import type { Agent } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { Tenant } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { invalidFields } from "#platform/rpc/errors.ts";
import { checkApprovalPolicy } from "./approval-policy-rules.ts";
import { ADAPTERS, checkCompaction } from "./compaction-rules.ts";
import { HARMLESS_TOOLS } from "./default-agent.ts";
import { DEFAULT_PROVIDER, ModelRules } from "./model-rules.ts";
import { Violations } from "./text-rules.ts";
import type { MaskRules } from "./update-mask.ts";

const DEFAULT_MAX_TOKENS = 4096;
const DEFAULT_MAX_ITERATIONS = 20;

/** The names by which models can call tools (Tool.name). */
export const TOOL_NAME = /^[A-Za-z0-9_-]{1,64}$/;
const PLUGIN_NAME = /^[a-z][a-z0-9_-]{0,63}$/;

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
    "fallbacks",
    "is_default",
    "approval_policy",
  ]),
  ignored: new Set(["agent_id", "etag"]),
};

const OF_THE_PROVIDER = ["llm_model", "compaction_config", "routes", "fallbacks"];
/** As many as the contract's own rules name at most. */
const MAX_VIOLATIONS = 20;

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
  const models = new ModelRules(agent, tenant, wrong);
  const checks: Record<string, () => void> = {
    name: () =>
      agent.name.trim() === "" ? wrong.add("name", "an agent needs a name") : wrong.line("name", agent.name),
    description: () => wrong.text("description", agent.description),
    llm_provider: () => models.provider("llm_provider", agent.llmProvider),
    llm_model: () => models.own(),
    system_prompt: () => wrong.text("system_prompt", agent.systemPrompt),
    prompt_template_id: () => wrong.line("prompt_template_id", agent.promptTemplateId),
    tools: () => checkTools(agent, tenant, wrong),
    kb_namespaces: () => wrong.lines("kb_namespaces", agent.kbNamespaces),
    compaction_config() {
      const { compactionConfig: config } = agent;
      if (config === undefined) return;
      checkCompaction(config, wrong);
      if (config.summaryModel === "") return;
      models.model("compaction_config.summary_model", agent.llmProvider, config.summaryModel);
    },
    adapter() {
      if (agent.adapter === "" || Object.hasOwn(ADAPTERS, agent.adapter)) return;
      wrong.add("adapter", `must be empty or one of ${Object.keys(ADAPTERS).join(", ")}`);
    },
    plugins: () => checkPlugins(agent.plugins, wrong),
    routes: () => models.routes(),
    approval_policy: () => checkApprovalPolicy(agent.approvalPolicy, wrong),
    fallbacks: () => models.fallbacks("fallbacks", agent.fallbacks, `${agent.llmProvider} ${agent.llmModel}`),
  };
  // Whether a model is allowed depends on the provider too, and where none is named it is the agent's.
  const looked = changed.has("llm_provider") ? new Set([...changed, ...OF_THE_PROVIDER]) : changed;
  for (const [field, check] of Object.entries(checks)) if (looked.has(field)) check();
  if (wrong.found.length > 0) throw invalidFields(...wrong.found.slice(0, MAX_VIOLATIONS));
}

function checkTools(agent: Agent, tenant: Tenant, wrong: Violations): void {
  const enabled = enabledTools(tenant);
  for (const [i, tool] of agent.tools.entries()) {
    if (!TOOL_NAME.test(tool)) wrong.add(`tools[${i}]`, "is not a tool's name: letters, digits, _ and -");
    else if (!enabled.includes(tool)) wrong.add(`tools[${i}]`, "is not among the tenant's enabled_tools");
  }
}

/** Which plugins there are is the agent service's to know. */
function checkPlugins(plugins: readonly string[], wrong: Violations): void {
  for (const [i, plugin] of plugins.entries()) {
    if (!PLUGIN_NAME.test(plugin)) wrong.add(`plugins[${i}]`, "is not a plugin's name: a-z, 0-9, _ and -");
    else if (plugins.indexOf(plugin) < i) wrong.add(`plugins[${i}]`, "is there already");
  }
}
