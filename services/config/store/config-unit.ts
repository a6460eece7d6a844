import { create, toBinary } from "@bufbuild/protobuf";
import { type Agent, AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";
import type { Tenant } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { AgentChangedSchema, TenantChangedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Tx } from "#platform/postgres/database.ts";
import { isUniqueViolation } from "#platform/postgres/errors.ts";
import { enqueue } from "#platform/postgres/outbox.ts";
import type { Call } from "#platform/rpc/call.ts";
import { withDefaults } from "../domain/agent-rules.ts";
import { DEFAULT_AGENT } from "../domain/default-agent.ts";
import { agentNameTaken } from "../errors.ts";
import { AGENT_COLUMNS, type AgentRow, agentMessage, agentSettings } from "./agent-row.ts";
import { ModelCredentialTable } from "./model-credentials.ts";
import { type Page, type PageRequest, pageOf, pageParams, pageSql } from "./page-query.ts";
import { statusName, TENANT_COLUMNS, type TenantRow, tenantMessage, tenantSettings } from "./tenant-row.ts";
import { UserProfileTable } from "./user-profiles.ts";

const LIST_AGENTS = pageSql({
  table: "config.agents",
  columns: AGENT_COLUMNS,
  id: "agent_id",
  where: "tenant_id = agentmesh.current_tenant()",
});

/**
 * One tenant's configuration inside a transaction. Every write also writes what belongs to it: a version's snapshot and
 * the event for whoever caches it.
 */
export class ConfigUnit {
  readonly tenantId: string;
  readonly profiles: UserProfileTable;
  readonly credentials: ModelCredentialTable;
  readonly #tx: Tx;
  readonly #call: Call;

  constructor(tx: Tx, tenantId: string, call: Call) {
    this.#tx = tx;
    this.tenantId = tenantId;
    this.#call = call;
    this.profiles = new UserProfileTable(tx, tenantId);
    this.credentials = new ModelCredentialTable(tx, tenantId);
  }

  /** The tenant. With `lock` other changes of the tenant and its agents wait for this one. */
  async tenant(lock?: "lock"): Promise<Tenant | undefined> {
    const sql = `SELECT ${TENANT_COLUMNS} FROM config.tenants WHERE tenant_id = $1${lock ? " FOR UPDATE" : ""}`;
    const row = await this.#tx.one<TenantRow>(sql, [this.tenantId]);
    return row && tenantMessage(row);
  }

  /** Adds the tenant unless it is there; returns whether it was added. */
  async addTenant(tenant: Tenant): Promise<boolean> {
    const sql = `INSERT INTO config.tenants (tenant_id, status, epoch, settings) VALUES ($1, $2, 1, $3)
      ON CONFLICT (tenant_id) DO NOTHING RETURNING ${TENANT_COLUMNS}`;
    const row = await this.#tx.one<TenantRow>(sql, [this.tenantId, statusName(tenant.status), tenantSettings(tenant)]);
    if (row !== undefined) await this.#tenantChanged(row);
    return row !== undefined;
  }

  async saveTenant(tenant: Tenant): Promise<Tenant> {
    const sql = `UPDATE config.tenants SET status = $2, settings = $3, epoch = epoch + 1, updated_at = clock_timestamp()
      WHERE tenant_id = $1 RETURNING ${TENANT_COLUMNS}`;
    const row = await this.#one<TenantRow>(sql, [this.tenantId, statusName(tenant.status), tenantSettings(tenant)]);
    await this.#tenantChanged(row);
    return tenantMessage(row);
  }

  async agent(agentId: string): Promise<Agent | undefined> {
    const sql = `SELECT ${AGENT_COLUMNS} FROM config.agents WHERE tenant_id = $1 AND agent_id = $2`;
    const row = await this.#tx.one<AgentRow>(sql, [this.tenantId, agentId]);
    return row && agentMessage(row);
  }

  async defaultAgent(): Promise<Agent | undefined> {
    const sql = `SELECT ${AGENT_COLUMNS} FROM config.agents WHERE tenant_id = $1 AND is_default`;
    const row = await this.#tx.one<AgentRow>(sql, [this.tenantId]);
    return row && agentMessage(row);
  }

  async listAgents(page: PageRequest): Promise<Page<Agent>> {
    const rows = await this.#tx.query<AgentRow & { found_rows: number }>(LIST_AGENTS, pageParams(page));
    return pageOf(rows, page.size, agentMessage);
  }

  async addAgent(agent: Agent): Promise<Agent> {
    const sql = `INSERT INTO config.agents (tenant_id, agent_id, name, is_default, version, settings)
      VALUES ($1, $2, $3, $4, 1, $5) RETURNING ${AGENT_COLUMNS}`;
    const params = [this.tenantId, newId("agt"), agent.name, agent.isDefault, agentSettings(agent)];
    return this.#written(sql, params);
  }

  /** Adds the agent that every tenant starts with. */
  addDefaultAgent(): Promise<Agent> {
    return this.addAgent(withDefaults(create(AgentSchema, DEFAULT_AGENT)));
  }

  async saveAgent(agent: Agent): Promise<Agent> {
    const sql = `UPDATE config.agents SET name = $3, is_default = $4, settings = $5, version = version + 1, updated_at = clock_timestamp()
      WHERE tenant_id = $1 AND agent_id = $2 RETURNING ${AGENT_COLUMNS}`;
    return this.#written(sql, [this.tenantId, agent.agentId, agent.name, agent.isDefault, agentSettings(agent)]);
  }

  async deleteAgent(agentId: string): Promise<void> {
    const sql = "DELETE FROM config.agents WHERE tenant_id = $1 AND agent_id = $2";
    await this.#tx.execute(sql, [this.tenantId, agentId]);
    await this.#agentChanged(agentId, 0);
  }

  /** Tells every process that something other than an agent or the tenant itself has changed; it does not say what. */
  changed(what: "profile" | "credential"): Promise<void> {
    return this.#enqueue(`agentmesh.config.v1.${this.tenantId}.${what}_changed`, new Uint8Array());
  }

  /** An audit row of the tenant, who did it from the call. */
  audit(type: string, resource: string, details?: object): Promise<void> {
    return audit(this.#tx, "config", this.#call, { type, resource, details });
  }

  async #written(sql: string, params: readonly unknown[]): Promise<Agent> {
    const row = await this.#one<AgentRow>(sql, params).catch((error: unknown) => {
      throw isUniqueViolation(error, "agents_name") ? agentNameTaken() : error;
    });
    await this.#tx.execute(
      `INSERT INTO config.agent_versions (tenant_id, agent_id, version, name, is_default, settings)
       SELECT tenant_id, agent_id, version, name, is_default, settings FROM config.agents
       WHERE tenant_id = $1 AND agent_id = $2`,
      [this.tenantId, row.agent_id],
    );
    await this.#agentChanged(row.agent_id, row.version);
    return agentMessage(row);
  }

  async #one<R>(sql: string, params: readonly unknown[]): Promise<R> {
    const row = await this.#tx.one<R>(sql, params);
    if (row === undefined) throw new Error("a row that was there a statement ago is gone");
    return row;
  }

  #tenantChanged({ status, epoch }: TenantRow): Promise<void> {
    const event = create(TenantChangedSchema, { tenantId: this.tenantId, status, epoch: BigInt(epoch) });
    return this.#enqueue(`agentmesh.tenant.v1.${this.tenantId}.changed`, toBinary(TenantChangedSchema, event));
  }

  #agentChanged(agentId: string, version: number): Promise<void> {
    const event = create(AgentChangedSchema, { tenantId: this.tenantId, agentId, version });
    return this.#enqueue(`agentmesh.config.v1.${this.tenantId}.agent_changed`, toBinary(AgentChangedSchema, event));
  }

  #enqueue(subject: string, payload: Uint8Array): Promise<void> {
    return enqueue(this.#tx, "config", { subject, eventId: newId("evt"), tenantId: this.tenantId, payload });
  }
}
