import { EmbeddedLimiter } from "#platform/redis/embedded-limiter.ts";
import { NO_TENANT } from "#platform/redis/limiter.ts";
import { networkOf } from "#platform/rpc/network.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { GatewayLimits } from "../limits.ts";
import { rateLimited } from "./rate-limits.ts";

/**
 * Slows down who guesses credentials: each refused one is a failure of its address, and beyond the limit nothing from
 * there is looked up any more. This gateway's own count, in memory: it has to work without anything else, cheaply.
 */
export interface AddressGuard {
  /** Throws RESOURCE_EXHAUSTED RATE_LIMITED when too many attempts from there have failed. */
  check(address: string): void;
  failed(address: string): void;
}

export function createAddressGuard(
  limits: Pick<GatewayLimits, "addressFailureRate" | "addressFailureBurst">,
  metrics: Pick<Metrics, "counter">,
): AddressGuard {
  const failures = new EmbeddedLimiter();
  const limited = metrics.counter("gateway_rate_limited_total", "Calls refused by a rate limit", ["limit", "class"]);
  const take = (address: string, cost: number) => {
    const figures = { rate: limits.addressFailureRate, burst: limits.addressFailureBurst };
    return failures.takeNow([{ tenantId: NO_TENANT, key: networkOf(address) || "unknown", cost, ...figures }]).taken[0];
  };
  return {
    check(address) {
      if (limits.addressFailureRate <= 0) return;
      const asked = take(address, 0);
      if (asked === undefined || asked.allowed) return;
      limited.inc({ limit: "address", class: "failures" });
      throw rateLimited("Too many refused credentials from this address. Wait.", "address", asked.retryAfterMs);
    },
    failed(address) {
      if (limits.addressFailureRate > 0) take(address, 1);
    },
  };
}
