import { create, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import {
  type ResolveAgentRequest,
  type ResolveAgentResponse,
  ResolveAgentResponseSchema,
} from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import {
  type GetUserProfileResponse,
  GetUserProfileResponseSchema,
  type UserProfile,
} from "#gen/agentmesh/config/v1/user_profile_service_pb.ts";
import type { Bus, BusMessage, Subscription } from "#platform/bus/bus.ts";
import { isId } from "#platform/id.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { cacheKey } from "#platform/redis/cache-key.ts";
import { cached } from "#platform/redis/cached.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { resolveAgent } from "./domain/resolve-agent.ts";
import { DELETED, SUSPENDED } from "./domain/tenant-rules.ts";
import { reaches } from "./domain/user-profiles.ts";
import { tenantSuspended } from "./errors.ts";
import type { ConfigEvents } from "./events.ts";
import type { ConfigStore } from "./store/config-store.ts";

/** All that is cached of a tenant's agents; invalidated together, for a tenant's change can change every agent. */
const NAMESPACE = "config.agent";
/** The same of its users' profiles, which change without its agents and by far more often. */
const PROFILES = "config.profile";

const codec = {
  encode: (value: ResolveAgentResponse) => toJsonString(ResolveAgentResponseSchema, value),
  decode: (text: string) => fromJsonString(ResolveAgentResponseSchema, text),
};

/** A user without a profile is an answer too, and the most frequent one. */
const profileCodec = {
  encode: (value: GetUserProfileResponse) => toJsonString(GetUserProfileResponseSchema, value),
  decode: (text: string) => fromJsonString(GetUserProfileResponseSchema, text),
};

export interface ResolutionDeps {
  readonly store: ConfigStore;
  readonly cache: Cache;
  readonly events: ConfigEvents;
  readonly ttlMs: number;
}

/** Agents as they run, cached. */
export class Resolution {
  readonly #deps: ResolutionDeps;

  constructor(deps: ResolutionDeps) {
    this.#deps = deps;
  }

  /** An agent of the caller's tenant, or its default agent when none is named, and what is known of the user. */
  async resolve(call: Call, { agentId, endUserId }: ResolveAgentRequest): Promise<ResolveAgentResponse> {
    const [resolved, userProfile] = await Promise.all([this.#agent(call, agentId), this.#profile(call, endUserId)]);
    return userProfile === undefined ? resolved : { ...resolved, userProfile };
  }

  async #agent(call: Call, agentId: string): Promise<ResolveAgentResponse> {
    const { cache, ttlMs, events } = this.#deps;
    const key = cacheKey({ tenantId: call.principal.tenantId, namespace: NAMESPACE, parts: [agentId], version: 3 });
    let how: "loaded" | "shared" = "shared";
    const load = (signal: AbortSignal) => {
      how = "loaded";
      return this.#load(withSignal(call, signal), agentId);
    };
    const found = await cached(cache, key, ttlMs, load, { signal: call.signal, codec });
    events.resolved(how);
    return found ?? raise(notFound("agent"));
  }

  async #profile(call: Call, endUserId: string): Promise<UserProfile | undefined> {
    if (!reaches(call, endUserId)) return undefined;
    const { cache, ttlMs, store } = this.#deps;
    const { tenantId } = call.principal;
    const key = cacheKey({ tenantId, namespace: PROFILES, parts: [endUserId] });
    const load = (signal: AbortSignal) =>
      store.read(withSignal(call, signal), { tenantId, crossed: false }, "user_profile.resolved", async (unit) =>
        create(GetUserProfileResponseSchema, { profile: await unit.profiles.get(endUserId) }),
      );
    return (await cached(cache, key, ttlMs, load, { signal: call.signal, codec: profileCodec }))?.profile;
  }

  invalidateProfiles(tenantId: string): Promise<void> {
    return this.#deps.cache.invalidate({ tenantId, namespace: PROFILES });
  }

  invalidate(tenantId: string): Promise<void> {
    return this.#deps.cache.invalidate({ tenantId, namespace: NAMESPACE });
  }

  /**
   * Invalidates on every process's events. The writer has done so already in a cache that is shared; this reaches caches
   * that are not, and makes up for a writer that died in between.
   */
  async follow(bus: Bus): Promise<Subscription[]> {
    const on = (subject: string, invalidate: (tenantId: string) => Promise<void>) =>
      bus.listen(subject, (message: BusMessage) => {
        const tenantId = message.subject.split(".")[3];
        if (isId("ten", tenantId)) void invalidate(tenantId);
      });
    const agents = (tenantId: string) => this.invalidate(tenantId);
    return Promise.all([
      on("agentmesh.config.v1.*.agent_changed", agents),
      on("agentmesh.config.v1.*.credential_changed", agents),
      on("agentmesh.tenant.v1.*.changed", agents),
      on("agentmesh.config.v1.*.profile_changed", (tenantId) => this.invalidateProfiles(tenantId)),
    ]);
  }

  #load(call: Call, agentId: string): Promise<ResolveAgentResponse | undefined> {
    const choice = { tenantId: call.principal.tenantId, crossed: false };
    return this.#deps.store.read(call, choice, "agent.resolved", async (unit) => {
      const tenant = await unit.tenant();
      if (tenant === undefined || tenant.status === DELETED) return undefined;
      if (tenant.status === SUSPENDED) throw tenantSuspended();
      const agent = agentId === "" ? await unit.defaultAgent() : await unit.agent(agentId);
      if (agent === undefined) return undefined;
      const own = (await unit.credentials.list()).map(({ credential }) => credential.llmProvider);
      return create(ResolveAgentResponseSchema, resolveAgent(agent, tenant, own));
    });
  }
}
