import type { Agent, ModelChoice, ModelRoute } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { Tenant } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { compileCondition } from "#platform/cel/condition.ts";
import { ConditionError } from "#platform/cel/condition-rules.ts";
import { modelAllowed } from "./model-pattern.ts";
import type { Violations } from "./text-rules.ts";
import { allowedModels } from "./tier-limits.ts";

export const DEFAULT_PROVIDER = "anthropic";
/** The demo model costs nothing and is open to every tier. */
export const DEMO_PROVIDER = "demo";
/** Providers that agents may name. */
const PROVIDERS = [DEFAULT_PROVIDER, "openai", DEMO_PROVIDER];

/** Characters of all conditions of an agent: what it takes to compile them is bounded together. */
const MAX_CONDITIONS = 20_000;

/** Whether a tenant's agents may use a model. */
export function mayUse(tenant: Tenant, provider: string, model: string): boolean {
  return provider === DEMO_PROVIDER || modelAllowed(allowedModels(tenant.tier, tenant.limits), model);
}

/** The models of an agent, each violation at the path of its field. */
export class ModelRules {
  readonly #agent: Agent;
  readonly #tenant: Tenant;
  readonly #wrong: Violations;

  constructor(agent: Agent, tenant: Tenant, wrong: Violations) {
    this.#agent = agent;
    this.#tenant = tenant;
    this.#wrong = wrong;
  }

  provider(field: string, provider: string): void {
    if (!PROVIDERS.includes(provider)) this.#wrong.add(field, `must be one of ${PROVIDERS.join(", ")}`);
  }

  /** The agent's own model. It may stay open where the tier has one for it. */
  own(): void {
    const { llmProvider, llmModel } = this.#agent;
    if (llmModel !== "") this.model("llm_model", llmProvider, llmModel);
    else if (llmProvider === "openai") this.#wrong.add("llm_model", "must be named: no tier has one for openai");
  }

  model(field: string, provider: string, model: string): void {
    this.#wrong.line(field, model);
    if (mayUse(this.#tenant, provider, model)) return;
    const allowed = allowedModels(this.#tenant.tier, this.#tenant.limits);
    this.#wrong.add(field, `the tenant may use ${allowed.join(", ")}`);
  }

  /** A list of fallbacks; `taken` is the model that they stand in for, where it is known. */
  fallbacks(field: string, choices: readonly ModelChoice[], taken?: string): void {
    const seen = new Set([taken]);
    for (const [i, choice] of choices.entries()) {
      const at = `${field}[${i}]`;
      const name = this.#choice(at, choice);
      if (seen.has(name)) this.#wrong.add(at, "is there already");
      seen.add(name);
    }
  }

  routes(): void {
    const { routes } = this.#agent;
    const names = new Set<string>();
    let characters = 0;
    for (const [i, route] of routes.entries()) {
      const at = `routes[${i}]`;
      if (route.name.trim() === "") this.#wrong.add(`${at}.name`, "a route needs a name");
      this.#wrong.line(`${at}.name`, route.name);
      if (names.has(route.name)) this.#wrong.add(`${at}.name`, "is the name of another route");
      names.add(route.name);
      characters += route.condition.length;
      if (characters <= MAX_CONDITIONS) this.#condition(`${at}.condition`, route);
      this.fallbacks(`${at}.fallbacks`, route.fallbacks, this.#choice(at, route));
    }
    if (characters > MAX_CONDITIONS) {
      this.#wrong.add("routes", `their conditions must not have more than ${MAX_CONDITIONS} characters in all`);
    }
  }

  #condition(field: string, { condition }: ModelRoute): void {
    try {
      compileCondition(condition);
    } catch (error) {
      if (!(error instanceof ConditionError)) throw error;
      this.#wrong.add(field, error.message);
    }
  }

  /** Checks a model and its provider; returns both as one name. */
  #choice(at: string, { llmProvider, llmModel }: ModelChoice | ModelRoute): string {
    const provider = llmProvider || this.#agent.llmProvider;
    this.provider(`${at}.llm_provider`, provider);
    this.model(`${at}.llm_model`, provider, llmModel);
    return `${provider} ${llmModel}`;
  }
}
