import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import {
  type CreateTenantResponseSchema,
  type Tenant,
  TenantSchema,
  type TenantStatus,
} from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { newId } from "#platform/id.ts";
import { answerOnce, type Once } from "#platform/postgres/answer-once.ts";
import { audit } from "#platform/postgres/audit.ts";
import type { Database } from "#platform/postgres/database.ts";
import type { Call } from "#platform/rpc/call.ts";
import type { TenantChoice } from "#platform/tenancy/resolve-tenant.ts";
import { ConfigUnit } from "./config-unit.ts";
import { type Page, type PageRequest, pageOf, pageParams, pageSql } from "./page-query.ts";
import { statusName, TENANT_COLUMNS, type TenantRow, tenantMessage } from "./tenant-row.ts";

const LIST_TENANTS = pageSql({
  table: "config.tenants",
  columns: TENANT_COLUMNS,
  id: "tenant_id",
  where: "status = ANY ($5::text[])",
});

/** Tenants and agents in Postgres. Every method is one transaction. */
export class ConfigStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Changes a tenant's configuration; a repeated request gets the first one's answer and changes nothing. */
  change<O extends DescMessage>(
    call: Call,
    tenantId: string,
    once: Once<O>,
    act: (unit: ConfigUnit) => Promise<MessageInitShape<O>>,
  ): Promise<MessageShape<O>> {
    const options = { schema: "config", tenantId, call, once };
    return this.#database.tenant(
      tenantId,
      (tx) => answerOnce(tx, options, () => act(new ConfigUnit(tx, tenantId, call))),
      inTime(call),
    );
  }

  /** Reads a tenant's configuration. A look across tenants leaves an audit row there. */
  read<T>(call: Call, { tenantId, crossed }: TenantChoice, what: string, look: (unit: ConfigUnit) => Promise<T>) {
    return this.#database.tenant(
      tenantId,
      async (tx) => {
        const found = await look(new ConfigUnit(tx, tenantId, call));
        if (crossed) await audit(tx, "config", call, { type: what });
        return found;
      },
      { readOnly: !crossed, ...inTime(call) },
    );
  }

  /** Writes that are safe to repeat by themselves. */
  write<T>(call: Call, tenantId: string, act: (unit: ConfigUnit) => Promise<T>): Promise<T> {
    return this.#database.tenant(tenantId, (tx) => act(new ConfigUnit(tx, tenantId, call)), inTime(call));
  }

  /**
   * An id for a new tenant: the same one for a repeated request. It is kept in the caller's tenant, since the new one is
   * not known before, so a creation that broke off after this is completed by its repeat.
   */
  async newTenantId(call: Call, once: Once<typeof CreateTenantResponseSchema>): Promise<string> {
    const { tenantId } = call.principal;
    const options = { schema: "config", tenantId, call, once };
    const reserve = async () => ({ tenant: create(TenantSchema, { tenantId: newId("ten") }) });
    const { tenant } = await this.#database.tenant(tenantId, (tx) => answerOnce(tx, options, reserve), inTime(call));
    return tenant?.tenantId ?? "";
  }

  /** Tenants of the installation, newest first; for platform administrators, and audited in the caller's tenant. */
  async listTenants(call: Call, page: PageRequest, statuses: readonly TenantStatus[]): Promise<Page<Tenant>> {
    await this.#database.tenant(
      call.principal.tenantId,
      (tx) => audit(tx, "config", call, { type: "tenant.listed" }),
      inTime(call),
    );
    const params = [...pageParams(page), statuses.map(statusName)];
    const rows = await this.#database.worker(
      (tx) => tx.query<TenantRow & { found_rows: number }>(LIST_TENANTS, params),
      { readOnly: true, ...inTime(call) },
    );
    return pageOf(rows, page.size, tenantMessage);
  }
}

function inTime({ signal, deadline }: Call) {
  return { signal, deadline };
}
