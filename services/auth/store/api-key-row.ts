import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type ApiKey, ApiKeySchema } from "#gen/agentmesh/auth/v1/api_key_service_pb.ts";
import { shownPrefix } from "../domain/api-key-format.ts";

/** A row of auth.api_keys with the time from auth.credentials. */
export interface ApiKeyRow {
  readonly api_key_id: string;
  readonly name: string;
  readonly scopes: string[];
  readonly user_id: string;
  readonly created_at: Date;
  readonly expires_at: Date | null;
  readonly revoked_at: Date | null;
  readonly last_used_at: Date | null;
}

/** Keys of the current tenant; continues with `AND`. The condition stands beside row-level security, not in its place. */
export const SELECT_KEYS = `SELECT k.api_key_id, k.name, k.scopes, k.user_id, k.created_at, k.expires_at, k.revoked_at, c.last_used_at
  FROM auth.api_keys k JOIN auth.credentials c USING (tenant_id, api_key_id)
  WHERE k.tenant_id = agentmesh.current_tenant()`;

export function apiKeyMessage(row: ApiKeyRow): ApiKey {
  return create(ApiKeySchema, {
    apiKeyId: row.api_key_id,
    name: row.name,
    scopes: row.scopes,
    userId: row.user_id,
    secretPrefix: shownPrefix(row.api_key_id),
    createTime: timestampFromDate(row.created_at),
    ...(row.expires_at === null ? {} : { expireTime: timestampFromDate(row.expires_at) }),
    ...(row.revoked_at === null ? {} : { revokeTime: timestampFromDate(row.revoked_at) }),
    ...(row.last_used_at === null ? {} : { lastUseTime: timestampFromDate(row.last_used_at) }),
  });
}
