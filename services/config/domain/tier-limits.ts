import type { TenantLimits, TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";

/** A tier that a tenant can have. */
export type Tier =
  | typeof TenantTier.FREE
  | typeof TenantTier.STARTER
  | typeof TenantTier.PRO
  | typeof TenantTier.ENTERPRISE;

/** What a tenant of a tier may use where its own limits say nothing; -1 means no limit. */
export interface TierLimits {
  readonly maxSessionsPerDay: bigint;
  readonly maxMessagesPerSession: bigint;
  readonly maxTokensPerMonth: bigint;
  readonly maxConcurrentSessions: bigint;
  readonly maxToolCallsPerMinute: bigint;
  readonly maxMessageCharacters: bigint;
  /** Patterns with `*`. */
  readonly allowedModels: readonly string[];
  /** Model of agents that name none. */
  readonly defaultModel: string;
}

const NO_LIMIT = -1n;
const HAIKU = "claude-haiku-*";
const SONNET = "claude-sonnet-*";
const OPUS = "claude-opus-*";
const GPT_MINI = "gpt-*-mini*";
const GPT_NANO = "gpt-*-nano*";
const GPT = "gpt-*";

const FREE: TierLimits = {
  maxSessionsPerDay: 50n,
  maxMessagesPerSession: 20n,
  maxTokensPerMonth: 100_000n,
  maxConcurrentSessions: 2n,
  maxToolCallsPerMinute: 60n,
  maxMessageCharacters: 10_000n,
  allowedModels: [HAIKU],
  defaultModel: "claude-haiku-5-5",
};

const STARTER: TierLimits = {
  maxSessionsPerDay: 500n,
  maxMessagesPerSession: 50n,
  maxTokensPerMonth: 1_000_000n,
  maxConcurrentSessions: 10n,
  maxToolCallsPerMinute: 60n,
  maxMessageCharacters: 100_000n,
  allowedModels: [HAIKU, SONNET, GPT_NANO, GPT_MINI],
  defaultModel: "claude-sonnet-5-5",
};

const PRO: TierLimits = {
  maxSessionsPerDay: 5_000n,
  maxMessagesPerSession: 100n,
  maxTokensPerMonth: 10_000_000n,
  maxConcurrentSessions: 50n,
  maxToolCallsPerMinute: 60n,
  maxMessageCharacters: 100_000n,
  allowedModels: [HAIKU, SONNET, OPUS, GPT],
  defaultModel: "claude-sonnet-5-5",
};

const ENTERPRISE: TierLimits = {
  maxSessionsPerDay: NO_LIMIT,
  maxMessagesPerSession: NO_LIMIT,
  maxTokensPerMonth: NO_LIMIT,
  maxConcurrentSessions: NO_LIMIT,
  maxToolCallsPerMinute: NO_LIMIT,
  maxMessageCharacters: 100_000n,
  allowedModels: ["*"],
  defaultModel: "claude-sonnet-5-5",
};

/** By the number of agentmesh.config.v1.TenantTier. The figures are the design document's; the models today's. */
export const TIERS: Readonly<Record<Tier, TierLimits>> = { 1: FREE, 2: STARTER, 3: PRO, 4: ENTERPRISE };

/** The limits of a tier; those of FREE for a number that this release does not know. */
export function tierLimits(tier: TenantTier): TierLimits {
  return TIERS[tier as Tier] ?? FREE;
}

/** The models that a tenant may use: its own patterns, else its tier's. */
export function allowedModels(tier: TenantTier, own: TenantLimits | undefined): readonly string[] {
  return own !== undefined && own.allowedModels.length > 0 ? own.allowedModels : tierLimits(tier).allowedModels;
}
