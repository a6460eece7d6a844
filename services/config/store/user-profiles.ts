import { create, fromJson, type JsonObject, toJson } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type UserProfile, UserProfileSchema } from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import type { Tx } from "#platform/postgres/database.ts";

interface ProfileRow {
  readonly end_user_id: string;
  readonly version: number;
  readonly settings: JsonObject;
  readonly created_at: Date;
  readonly updated_at: Date;
}

const COLUMNS = "end_user_id, version, settings, created_at, updated_at";

/** One tenant's user profiles inside a transaction. */
export class UserProfileTable {
  readonly #tx: Tx;
  readonly #tenantId: string;

  constructor(tx: Tx, tenantId: string) {
    this.#tx = tx;
    this.#tenantId = tenantId;
  }

  async get(endUserId: string): Promise<UserProfile | undefined> {
    const sql = `SELECT ${COLUMNS} FROM config.user_profiles WHERE tenant_id = $1 AND end_user_id = $2`;
    const row = await this.#tx.one<ProfileRow>(sql, [this.#tenantId, endUserId]);
    return row && profileMessage(row);
  }

  /** The profile for a change: other changes of it wait for this one, whether it exists or not. */
  async locked(endUserId: string): Promise<UserProfile | undefined> {
    await this.#tx.lockKey("config.user_profiles", this.#tenantId, endUserId);
    return this.get(endUserId);
  }

  async put(profile: UserProfile): Promise<UserProfile> {
    const sql = `INSERT INTO config.user_profiles AS p (tenant_id, end_user_id, version, settings) VALUES ($1, $2, 1, $3)
      ON CONFLICT (tenant_id, end_user_id) DO UPDATE
        SET settings = excluded.settings, version = p.version + 1, updated_at = clock_timestamp()
      RETURNING ${COLUMNS}`;
    const [row] = await this.#tx.query<ProfileRow>(sql, [this.#tenantId, profile.endUserId, settingsOf(profile)]);
    if (row === undefined) throw new Error("a profile was written and is not there");
    return profileMessage(row);
  }

  async delete(endUserId: string): Promise<void> {
    const sql = "DELETE FROM config.user_profiles WHERE tenant_id = $1 AND end_user_id = $2";
    await this.#tx.execute(sql, [this.#tenantId, endUserId]);
  }
}

function profileMessage(row: ProfileRow): UserProfile {
  return create(UserProfileSchema, {
    ...fromJson(UserProfileSchema, row.settings, { ignoreUnknownFields: true }),
    endUserId: row.end_user_id,
    // A profile that was deleted and made anew begins with version 1 again.
    etag: `v${row.version}-${row.created_at.getTime().toString(36)}`,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
  });
}

function settingsOf(profile: UserProfile): string {
  const { createTime: _created, updateTime: _updated, ...rest } = profile;
  const settings = create(UserProfileSchema, { ...rest, endUserId: "", etag: "" });
  return JSON.stringify(toJson(UserProfileSchema, settings, { useProtoFieldName: true }));
}
