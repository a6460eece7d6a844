import type { DescMethod } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Limiter, NO_TENANT, type Take } from "#platform/redis/limiter.ts";
import { AppError } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { GatewayLimits } from "../limits.ts";
import type { Answer } from "./answer.ts";
import { classOf, type MethodClass } from "./method-class.ts";
import { OncePerMinute } from "./once-per-minute.ts";
import { rateLimitFields } from "./rate-limit-fields.ts";

/** Whose bucket: all of a tenant, or one credential of it. */
type Scope = "tenant" | "key";

/** Units per second by scope and class; 0 is no limit. */
export type Rates = { readonly [S in Scope]: { readonly [C in MethodClass]: number } };

export interface RateLimitOptions {
  readonly limiter: Limiter;
  readonly limits: GatewayLimits;
  /** How many gateways share the limits. */
  readonly replicas: number;
  /** What the limits are multiplied with now. */
  readonly factor: () => number;
  readonly metrics: Pick<Metrics, "counter">;
  readonly log: Pick<Log, "warn">;
}

/** The limits of tenants and their keys, by class of method. */
export interface RateLimits {
  /** Counts a call and says on its answer what is left. Throws RESOURCE_EXHAUSTED RATE_LIMITED. */
  enforce(method: DescMethod, principal: Principal, answer: Pick<Answer, "setHeader">): Promise<void>;
}

/** Bounds the key of a bucket; ids of ours are far shorter. */
const MAX_CREDENTIAL_ID = 128;

interface Bucket {
  readonly name: string;
  readonly scope: Scope;
  readonly take: Take;
}

export function createRateLimits(options: RateLimitOptions): RateLimits {
  const { limiter, limits, replicas } = options;
  const rates = ratesOf(limits);
  const limited = options.metrics.counter("gateway_rate_limited_total", "Calls refused by a rate limit", [
    "limit",
    "class",
  ]);
  const lines = new OncePerMinute();

  const bucketsOf = (principal: Principal, klass: MethodClass): Bucket[] => {
    const factor = options.factor();
    const bucket = (scope: Scope, owner: string): Bucket[] => {
      const rate = rates[scope][klass] * factor;
      if (rate <= 0) return [];
      const burst = Math.max(1, Math.round((rate * limits.rateBurstMs) / 1000));
      // A platform principal may belong to no tenant.
      const tenantId = principal.tenantId || NO_TENANT;
      return [{ name: `${scope}-${klass}`, scope, take: { tenantId, key: `${owner}:${klass}`, rate, burst } }];
    };
    return [
      ...bucket("key", `key:${principal.credentialId.slice(0, MAX_CREDENTIAL_ID)}`),
      ...bucket("tenant", "tenant"),
    ];
  };

  return {
    async enforce(method, principal, answer) {
      const klass = classOf(method);
      const buckets = bucketsOf(principal, klass);
      if (buckets.length === 0) return;
      const { allowed, taken } = await limiter.takeAll(
        buckets.map(({ take }) => take),
        { replicas },
      );
      const retryAfterMs = Math.max(...taken.map((one) => one.retryAfterMs));
      // §6 of the draft: Retry-After should not end before the window in which no more than what is left may be used.
      const windowMs = allowed ? Number.POSITIVE_INFINITY : retryAfterMs;
      const shown = buckets.map(({ name, take }, i) => ({
        name,
        burst: take.burst,
        rate: take.rate,
        remaining: taken[i]?.remaining ?? 0,
        resetMs: Math.min(taken[i]?.resetMs ?? 0, windowMs),
      }));
      const { policy, state } = rateLimitFields(shown);
      answer.setHeader("ratelimit-policy", policy);
      answer.setHeader("ratelimit", state);
      if (allowed) return;
      const refusing = buckets.filter((_, i) => taken[i]?.allowed === false);
      for (const { scope } of refusing) limited.inc({ limit: scope, class: klass });
      if (lines.first(principal.tenantId)) {
        options.log.warn(
          { event: "rate.limited", tenant_id: principal.tenantId, scope: refusing[0]?.name ?? "" },
          "a tenant is rate limited",
        );
      }
      answer.setHeader("retry-after", String(Math.ceil(retryAfterMs / 1000)));
      throw rateLimited("Too many calls. Wait, then go on more slowly.", refusing[0]?.name ?? "", retryAfterMs);
    },
  };
}

export function rateLimited(message: string, limit: string, retryAfterMs: number): AppError {
  const facts = { limit };
  return new AppError({ code: Code.ResourceExhausted, reason: "RATE_LIMITED", message, facts, retryAfterMs });
}

function ratesOf(limits: GatewayLimits): Rates {
  return {
    tenant: { runs: limits.tenantRunRate, writes: limits.tenantWriteRate, reads: limits.tenantReadRate },
    key: { runs: limits.keyRunRate, writes: limits.keyWriteRate, reads: limits.keyReadRate },
  };
}
