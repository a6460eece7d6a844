import type { ResolveAgentResponse } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import type { TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";

/** A tenant's part of what all share. */
export interface TenantShare {
  /** Most runs at the same time. */
  tenantLimit: number;
  /** Turns that it gets in each round where tenants compete. */
  weight: number;
}

/** By limits and tier; a negative limit is none. */
export function tenantShare({ limits, tier }: Pick<ResolveAgentResponse, "limits" | "tier">): TenantShare {
  const limit = Number(limits?.maxConcurrentSessions ?? -1n);
  return { tenantLimit: limit < 0 ? Number.MAX_SAFE_INTEGER : limit, weight: WEIGHTS[tier] ?? 1 };
}

/** UNSPECIFIED, FREE, STARTER, PRO, ENTERPRISE. */
const WEIGHTS: Readonly<Record<TenantTier, number>> = { 0: 1, 1: 1, 2: 2, 3: 4, 4: 8 };
