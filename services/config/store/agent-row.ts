import { create, fromJson, type JsonObject, toJson } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Agent, AgentSchema } from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";

/** A row of config.agents. */
export interface AgentRow {
  readonly tenant_id: string;
  readonly agent_id: string;
  readonly name: string;
  readonly is_default: boolean;
  readonly version: number;
  readonly settings: JsonObject;
  readonly created_at: Date;
  readonly updated_at: Date;
}

export const AGENT_COLUMNS = "tenant_id, agent_id, name, is_default, version, settings, created_at, updated_at";

export function agentMessage(row: AgentRow): Agent {
  const settings = fromJson(AgentSchema, row.settings, { ignoreUnknownFields: true });
  return create(AgentSchema, {
    ...settings,
    tenantId: row.tenant_id,
    agentId: row.agent_id,
    name: row.name,
    isDefault: row.is_default,
    version: row.version,
    etag: `v${row.version}`,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
  });
}

/** What the column `settings` holds of an agent. */
export function agentSettings(agent: Agent): string {
  const { createTime: _created, updateTime: _updated, ...rest } = agent;
  const own = { tenantId: "", agentId: "", name: "", isDefault: false, version: 0, etag: "" };
  return JSON.stringify(toJson(AgentSchema, create(AgentSchema, { ...rest, ...own }), { useProtoFieldName: true }));
}
