import { create, type DescMessage, fromJson, type JsonObject, type MessageShape, toJson } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import {
  type Agent,
  AgentSchema,
  CompactionConfigSchema,
  ModelRouteSchema,
} from "#gen/agentmesh/config/v1/agent_config_service_pb.ts";

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

const LENIENT = { ignoreUnknownFields: true };
const validator = createValidator();

export function agentMessage(row: AgentRow): Agent {
  const { compaction_config: compaction, routes, ...rest } = row.settings;
  const listed = Array.isArray(routes) ? routes : [];
  return create(AgentSchema, {
    ...fromJson(AgentSchema, rest, LENIENT),
    compactionConfig: fitting(CompactionConfigSchema, compaction),
    routes: listed.map((route) => fitting(ModelRouteSchema, route)).filter((route) => route !== undefined),
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

/**
 * The message that a part of a row's settings is, or undefined. Releases before 0.2 took any object for compaction_config
 * and routes; what is of no use to this one is left out, so that the agent can be read, run and mended.
 */
function fitting<D extends DescMessage>(schema: D, json: unknown): MessageShape<D> | undefined {
  if (typeof json !== "object" || json === null || Array.isArray(json)) return undefined;
  try {
    const message = fromJson(schema, json as JsonObject, LENIENT);
    return validator.validate(schema, message).kind === "valid" ? message : undefined;
  } catch {
    return undefined;
  }
}
