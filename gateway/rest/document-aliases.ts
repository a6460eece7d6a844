import type { DescMessage, DescMethod } from "@bufbuild/protobuf";
import type { JsonFields } from "./json/write-message.ts";

/** Names of the REST face that are not in the protos. */
export interface Aliases {
  /** Other names of query parameters: from that name to the field's. */
  query(method: DescMethod): ReadonlyMap<string, string> | undefined;
  /** Other names of a message's fields, shown beside the fields' own and accepted for them. */
  fields(desc: DescMessage): ReadonlyMap<string, string> | undefined;
  /** Members that a method's answer has besides its fields. */
  answer(method: DescMethod): JsonFields | undefined;
}

interface AliasTable {
  readonly query: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly fields: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly answer: Readonly<Record<string, JsonFields>>;
}

/**
 * What the design document's REST endpoints call otherwise, and nothing more: `limit` on its two lists (its `skip` is a
 * field), `created_at` and `updated_at` on sessions and agents, an agent's `id`, and the answer of its two deletes.
 */
export const DOCUMENT_ALIASES: AliasTable = {
  query: {
    "agentmesh.agent.v1.SessionService.ListSessions": { limit: "page_size" },
    "agentmesh.config.v1.AgentConfigService.ListAgents": { limit: "page_size" },
  },
  fields: {
    "agentmesh.agent.v1.Session": { created_at: "create_time", updated_at: "update_time" },
    "agentmesh.config.v1.Agent": { id: "agent_id", created_at: "create_time", updated_at: "update_time" },
  },
  answer: {
    "agentmesh.agent.v1.SessionService.DeleteSession": { status: "deleted" },
    "agentmesh.config.v1.AgentConfigService.DeleteAgent": { status: "deleted" },
  },
};

export function createAliases(table: AliasTable): Aliases {
  const maps = (entries: AliasTable["query"]) =>
    new Map(Object.entries(entries).map(([name, aliases]) => [name, new Map(Object.entries(aliases))]));
  const query = maps(table.query);
  const fields = maps(table.fields);
  return {
    query: ({ parent, name }) => query.get(`${parent.typeName}.${name}`),
    fields: ({ typeName }) => fields.get(typeName),
    answer: ({ parent, name }) => table.answer[`${parent.typeName}.${name}`],
  };
}
