import { create, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import {
  type ResolveAgentResponse,
  ResolveAgentResponseSchema,
} from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import type { Bus, BusMessage, Subscription } from "#platform/bus/bus.ts";
import { isId } from "#platform/id.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { cacheKey } from "#platform/redis/cache-key.ts";
import { cached } from "#platform/redis/cached.ts";
import { type Call, withSignal } from "#platform/rpc/call.ts";
import { notFound, raise } from "#platform/rpc/errors.ts";
import { resolveAgent } from "./domain/resolve-agent.ts";
import { DELETED, SUSPENDED } from "./domain/tenant-rules.ts";
import { tenantSuspended } from "./errors.ts";
import type { ConfigEvents } from "./events.ts";
import type { ConfigStore } from "./store/config-store.ts";

/** All that is cached of a tenant's agents; invalidated together, for a tenant's change can change every agent. */
const NAMESPACE = "config.agent";

const codec = {
  encode: (value: ResolveAgentResponse) => toJsonString(ResolveAgentResponseSchema, value),
  decode: (text: string) => fromJsonString(ResolveAgentResponseSchema, text),
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

  /** An agent of the caller's tenant, or its default agent when none is named. */
  async resolve(call: Call, agentId: string): Promise<ResolveAgentResponse> {
    const { cache, ttlMs, events } = this.#deps;
    const key = cacheKey({ tenantId: call.principal.tenantId, namespace: NAMESPACE, parts: [agentId] });
    let how: "loaded" | "shared" = "shared";
    const load = (signal: AbortSignal) => {
      how = "loaded";
      return this.#load(withSignal(call, signal), agentId);
    };
    const found = await cached(cache, key, ttlMs, load, { signal: call.signal, codec });
    events.resolved(how);
    return found ?? raise(notFound("agent"));
  }

  invalidate(tenantId: string): Promise<void> {
    return this.#deps.cache.invalidate({ tenantId, namespace: NAMESPACE });
  }

  /**
   * Invalidates on every process's events. The writer has done so already in a cache that is shared; this reaches caches
   * that are not, and makes up for a writer that died in between.
   */
  async follow(bus: Bus): Promise<Subscription[]> {
    const heard = ({ subject }: BusMessage) => {
      const tenantId = subject.split(".")[3];
      if (isId("ten", tenantId)) void this.invalidate(tenantId);
    };
    return Promise.all([
      bus.listen("agentmesh.config.v1.*.agent_changed", heard),
      bus.listen("agentmesh.tenant.v1.*.changed", heard),
    ]);
  }

  #load(call: Call, agentId: string): Promise<ResolveAgentResponse | undefined> {
    const choice = { tenantId: call.principal.tenantId, crossed: false };
    return this.#deps.store.read(call, choice, "agent.resolved", async (unit) => {
      const tenant = await unit.tenant();
      if (tenant === undefined || tenant.status === DELETED) return undefined;
      if (tenant.status === SUSPENDED) throw tenantSuspended();
      const agent = agentId === "" ? await unit.defaultAgent() : await unit.agent(agentId);
      return agent && create(ResolveAgentResponseSchema, resolveAgent(agent, tenant));
    });
  }
}
