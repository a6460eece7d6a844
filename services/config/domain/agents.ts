import type {
  Agent,
  AgentSchema,
  CreateAgentResponseSchema,
  DeleteAgentRequest,
  DeleteAgentResponseSchema,
  ListAgentsRequest,
  UpdateAgentRequest,
  UpdateAgentResponseSchema,
} from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { Tenant } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import type { Once } from "#platform/postgres/answer-once.ts";
import type { Call } from "#platform/rpc/call.ts";
import { etagMismatch, invalidFields, notFound, raise } from "#platform/rpc/errors.ts";
import type { PageTokens } from "#platform/secrets/page-token.ts";
import type { TenantChoice } from "#platform/tenancy/resolve-tenant.ts";
import { defaultAgentNeeded } from "../errors.ts";
import type { ChangeKind, ConfigEvents } from "../events.ts";
import type { ConfigStore } from "../store/config-store.ts";
import type { ConfigUnit } from "../store/config-unit.ts";
import { AGENT_MASK, checkAgent, withDefaults } from "./agent-rules.ts";
import { nextPageToken, pageAsked } from "./page.ts";
import { DELETED } from "./tenant-rules.ts";
import { applyMask } from "./update-mask.ts";

export interface AgentsDeps {
  readonly store: ConfigStore;
  readonly pageTokens: PageTokens;
  readonly events: ConfigEvents;
  readonly schema: typeof AgentSchema;
  /** Resolves when no process serves what was resolved before. */
  invalidate(tenantId: string): Promise<void>;
}

/** The agents of a tenant, of which exactly one is the default. */
export class Agents {
  readonly #deps: AgentsDeps;

  constructor(deps: AgentsDeps) {
    this.#deps = deps;
  }

  create(
    call: Call,
    { tenantId }: TenantChoice,
    asked: Agent | undefined,
    once: Once<typeof CreateAgentResponseSchema>,
  ) {
    if (asked === undefined) throw invalidFields({ field: "agent", description: "is required" });
    if (asked.agentId !== "") throw invalidFields({ field: "agent.agent_id", description: "is chosen by the server" });
    const agent = withDefaults(asked);
    return this.#changing(tenantId, "created", (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        checkAgent(agent, await tenantOf(unit, "lock"));
        if (agent.isDefault) await yieldDefault(unit);
        const added = note(await unit.addAgent(agent));
        await unit.audit("agent.created", added.agentId, { name: added.name });
        return { agent: added };
      }),
    );
  }

  async get(call: Call, choice: TenantChoice, agentId: string): Promise<Agent> {
    const agent = await this.#deps.store.read(call, choice, "agent.read", async (unit) => {
      await tenantOf(unit);
      return unit.agent(agentId);
    });
    return agent ?? raise(notFound("agent"));
  }

  async list(call: Call, choice: TenantChoice, request: ListAgentsRequest) {
    const { store, pageTokens } = this.#deps;
    const list = { tenant: call.principal.tenantId, filter: ["ListAgents", choice.tenantId] };
    const asked = pageAsked(pageTokens, list, request);
    const page = await store.read(call, choice, "agent.listed", async (unit) => {
      await tenantOf(unit);
      return unit.listAgents(asked);
    });
    return { agents: page.items, nextPageToken: nextPageToken(pageTokens, list, page, (agent) => agent.agentId) };
  }

  update(
    call: Call,
    { tenantId }: TenantChoice,
    { agent: asked, updateMask }: UpdateAgentRequest,
    once: Once<typeof UpdateAgentResponseSchema>,
  ) {
    if (asked === undefined) throw invalidFields({ field: "agent", description: "is required" });
    if (asked.agentId === "") throw invalidFields({ field: "agent.agent_id", description: "is required" });
    return this.#changing(tenantId, "updated", (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        const tenant = await tenantOf(unit, "lock");
        const current = (await unit.agent(asked.agentId)) ?? raise(notFound("agent"));
        if (asked.etag !== "" && asked.etag !== current.etag) throw etagMismatch();
        const { next, fields } = applyMask(this.#deps.schema, current, asked, updateMask, AGENT_MASK);
        if (fields.size === 0) return { agent: current };
        const agent = withDefaults(next);
        checkAgent(agent, tenant, fields);
        if (current.isDefault && !agent.isDefault) throw defaultAgentNeeded();
        if (agent.isDefault && !current.isDefault) await yieldDefault(unit);
        const saved = note(await unit.saveAgent(agent));
        await unit.audit("agent.updated", saved.agentId, { fields: [...fields], version: saved.version });
        return { agent: saved };
      }),
    );
  }

  delete(
    call: Call,
    { tenantId }: TenantChoice,
    { agentId, etag }: DeleteAgentRequest,
    once: Once<typeof DeleteAgentResponseSchema>,
  ) {
    return this.#changing(tenantId, "deleted", (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        await tenantOf(unit, "lock");
        const current = (await unit.agent(agentId)) ?? raise(notFound("agent"));
        if (etag !== "" && etag !== current.etag) throw etagMismatch();
        if (current.isDefault) throw defaultAgentNeeded();
        await unit.deleteAgent(agentId);
        note(current);
        await unit.audit("agent.deleted", agentId, { name: current.name });
        return {};
      }),
    );
  }

  /** Invalidates after a change and before its answer, so that nobody who has the answer is served the old state. */
  async #changing<T>(
    tenantId: string,
    kind: ChangeKind,
    change: (note: (agent: Agent) => Agent) => Promise<T>,
  ): Promise<T> {
    let changed: Agent | undefined;
    const answer = await change((agent) => (changed = agent));
    if (changed === undefined) return answer;
    await this.#deps.invalidate(tenantId);
    this.#deps.events.agentChanged(kind, tenantId, changed.agentId);
    return answer;
  }
}

async function tenantOf(unit: ConfigUnit, lock?: "lock"): Promise<Tenant> {
  const tenant = await unit.tenant(lock);
  if (tenant === undefined || tenant.status === DELETED) throw notFound("tenant");
  return tenant;
}

/** Takes the default from the agent that has it; to be called with the tenant locked. */
async function yieldDefault(unit: ConfigUnit): Promise<void> {
  const holder = await unit.defaultAgent();
  if (holder === undefined) return;
  const saved = await unit.saveAgent({ ...holder, isDefault: false });
  await unit.audit("agent.updated", saved.agentId, { fields: ["is_default"], version: saved.version });
}
