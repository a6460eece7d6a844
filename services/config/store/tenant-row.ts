import { create, fromJson, type JsonObject, toJson } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Tenant, TenantSchema, TenantStatus } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";

/** A row of config.tenants. */
export interface TenantRow {
  readonly tenant_id: string;
  readonly status: string;
  readonly epoch: number;
  readonly settings: JsonObject;
  readonly created_at: Date;
  readonly updated_at: Date;
}

export const TENANT_COLUMNS = "tenant_id, status, epoch, settings, created_at, updated_at";

const STATUS_NAMES = new Map<number, string>([
  [TenantStatus.ACTIVE, "active"],
  [TenantStatus.SUSPENDED, "suspended"],
  [TenantStatus.DELETED, "deleted"],
]);

/** The status as tables and events spell it. */
export function statusName(status: TenantStatus): string {
  const name = STATUS_NAMES.get(status);
  if (name === undefined) throw new RangeError(`a tenant cannot have status ${status}`);
  return name;
}

export function tenantMessage(row: TenantRow): Tenant {
  const status = [...STATUS_NAMES].find(([, name]) => name === row.status)?.[0] as TenantStatus;
  const settings = fromJson(TenantSchema, row.settings, { ignoreUnknownFields: true });
  return create(TenantSchema, {
    ...settings,
    tenantId: row.tenant_id,
    status,
    etag: tenantEtag(row.epoch),
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
  });
}

/** What the column `settings` holds of a tenant. */
export function tenantSettings(tenant: Tenant): string {
  const { createTime: _created, updateTime: _updated, ...rest } = tenant;
  const settings = create(TenantSchema, { ...rest, tenantId: "", status: TenantStatus.UNSPECIFIED, etag: "" });
  return JSON.stringify(toJson(TenantSchema, settings, { useProtoFieldName: true }));
}

function tenantEtag(epoch: number): string {
  return `v${epoch}`;
}
