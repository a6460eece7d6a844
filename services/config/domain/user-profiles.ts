import type {
  DeleteUserProfileRequest,
  DeleteUserProfileResponseSchema,
  PutUserProfileResponseSchema,
  UserProfile,
} from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import type { Once } from "#platform/postgres/answer-once.ts";
import type { Call } from "#platform/rpc/call.ts";
import { etagMismatch, invalidFields, notFound, raise } from "#platform/rpc/errors.ts";
import type { TenantChoice } from "#platform/tenancy/resolve-tenant.ts";
import type { ChangeKind, ConfigEvents } from "../events.ts";
import type { ConfigStore } from "../store/config-store.ts";
import type { ConfigUnit } from "../store/config-unit.ts";
import { DELETED } from "./tenant-rules.ts";
import { isLanguageTag, isOpaqueId, isTimeZone, Violations } from "./text-rules.ts";

export interface UserProfilesDeps {
  readonly store: ConfigStore;
  readonly events: ConfigEvents;
  /** Resolves when no process serves a profile of the tenant that was read before. */
  invalidate(tenantId: string): Promise<void>;
}

/** What a profile says, apart from whose it is and which version. */
const FIELDS = ["displayName", "timezone", "language", "style", "length", "level"] as const;

/** What agents are told of a tenant's users. */
export class UserProfiles {
  readonly #deps: UserProfilesDeps;

  constructor(deps: UserProfilesDeps) {
    this.#deps = deps;
  }

  async get(call: Call, choice: TenantChoice, endUserId: string): Promise<UserProfile> {
    assertReachable(call, endUserId);
    const profile = await this.#deps.store.read(call, choice, "user_profile.read", async (unit) => {
      await assertTenant(unit);
      return unit.profiles.get(endUserId);
    });
    return profile ?? raise(notFound("user_profile"));
  }

  put(
    call: Call,
    { tenantId }: TenantChoice,
    asked: UserProfile | undefined,
    once: Once<typeof PutUserProfileResponseSchema>,
  ) {
    if (asked === undefined) throw invalidFields({ field: "profile", description: "is required" });
    checkProfile(asked);
    assertReachable(call, asked.endUserId);
    return this.#changing(tenantId, (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        await assertTenant(unit);
        const current = await unit.profiles.locked(asked.endUserId);
        if (asked.etag !== "" && asked.etag !== current?.etag) throw etagMismatch();
        const fields = FIELDS.filter((field) => asked[field] !== (current?.[field] ?? ""));
        if (current !== undefined && fields.length === 0) return { profile: current };
        const profile = await unit.profiles.put(asked);
        await unit.changed("profile");
        note(current === undefined ? "created" : "updated");
        // Which fields, not what they say: it is about a person.
        await unit.audit(`user_profile.${current === undefined ? "created" : "updated"}`, asked.endUserId, { fields });
        return { profile };
      }),
    );
  }

  delete(
    call: Call,
    { tenantId }: TenantChoice,
    { endUserId, etag }: DeleteUserProfileRequest,
    once: Once<typeof DeleteUserProfileResponseSchema>,
  ) {
    assertReachable(call, endUserId);
    return this.#changing(tenantId, (note) =>
      this.#deps.store.change(call, tenantId, once, async (unit) => {
        await assertTenant(unit);
        const current = (await unit.profiles.locked(endUserId)) ?? raise(notFound("user_profile"));
        if (etag !== "" && etag !== current.etag) throw etagMismatch();
        await unit.profiles.delete(endUserId);
        await unit.changed("profile");
        note("deleted");
        await unit.audit("user_profile.deleted", endUserId);
        return {};
      }),
    );
  }

  /** Invalidates after a change and before its answer, so that nobody who has the answer is served the old state. */
  async #changing<T>(tenantId: string, change: (note: (kind: ChangeKind) => void) => Promise<T>): Promise<T> {
    const changed: ChangeKind[] = [];
    const answer = await change((kind) => changed.push(kind));
    for (const kind of changed) {
      await this.#deps.invalidate(tenantId);
      this.#deps.events.profileChanged(kind, tenantId);
    }
    return answer;
  }
}

/** Whether a caller may know of a user: a credential that is bound to one reaches that one only. */
export function reaches(call: Call, endUserId: string): boolean {
  const { userId } = call.principal;
  return isOpaqueId(endUserId) && (userId === undefined || userId === endUserId);
}

function assertReachable(call: Call, endUserId: string): void {
  if (!reaches(call, endUserId)) throw notFound("user_profile");
}

function checkProfile(profile: UserProfile): void {
  const wrong = new Violations("profile");
  const { endUserId, timezone, language } = profile;
  if (!isOpaqueId(endUserId)) wrong.add("end_user_id", "must be one line of text");
  wrong.plainLine("display_name", profile.displayName);
  if (timezone !== "" && !isTimeZone(timezone)) {
    wrong.add("timezone", "must be the IANA name of a time zone, such as Europe/Berlin");
  }
  if (language !== "" && !isLanguageTag(language)) {
    wrong.add("language", "must be a BCP 47 language tag, such as en or zh-CN");
  }
  wrong.plainLine("style", profile.style);
  wrong.plainLine("length", profile.length);
  wrong.plainLine("level", profile.level);
  if (wrong.found.length > 0) throw invalidFields(...wrong.found);
}

async function assertTenant(unit: ConfigUnit): Promise<void> {
  const tenant = await unit.tenant();
  if (tenant === undefined || tenant.status === DELETED) throw notFound("tenant");
}
