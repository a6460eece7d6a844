import type { ConfigSource } from "#platform/config/source.ts";
import { MAX_RATE } from "#platform/redis/limiter.ts";
import { blockList } from "./edge/peer.ts";
import { GATEWAY_LIMITS, type GatewayLimits } from "./limits.ts";

export interface GatewayConfig {
  /** Addresses and CIDR blocks of proxies whose `X-Forwarded-For` is believed. */
  readonly trustedProxies: readonly string[];
  /** Origins whose scripts may call; undefined: any in one embedded process, none elsewhere. */
  readonly corsOrigins: readonly string[] | undefined;
  readonly metricsPublic: boolean;
  /** How many gateways share the rate limits. */
  readonly replicas: number;
  readonly limits: GatewayLimits;
}

/** Reads the section `gateway`. */
export function readGatewayConfig(source: ConfigSource): GatewayConfig {
  const gateway = source.section("gateway");
  const trustedProxies = gateway.list("trusted_proxies", {
    default: [],
    doc: "Addresses and CIDR blocks of proxies whose X-Forwarded-For is believed; from others it is ignored.",
  });
  try {
    blockList(trustedProxies);
  } catch (error) {
    gateway.problem("trusted_proxies", (error as Error).message);
  }
  return {
    trustedProxies,
    corsOrigins: gateway.list("cors_origins", {
      optional: true,
      pattern: /\*|[a-z][a-z0-9+.-]*:\/\/[^/\s]+/,
      expected: "origins such as https://app.example.com, or *",
      doc: "Origins whose scripts may call the API; default any in an embedded process, none in a distributed one.",
    }),
    metricsPublic: gateway.bool("metrics_public", {
      default: false,
      doc: "Whether /metrics answers addresses outside of this host and private networks.",
    }),
    replicas: gateway.int("replicas", {
      default: 1,
      min: 1,
      max: 10_000,
      doc: "Gateways that share the rate limits; while Redis is away each allows its part.",
    }),
    limits: {
      ...GATEWAY_LIMITS,
      ...readRates(gateway.section("rates")),
      maxTenantStreams: gateway.int("tenant_streams", {
        default: GATEWAY_LIMITS.maxTenantStreams,
        min: 1,
        doc: "Streams that one tenant may have open at one gateway.",
      }),
      maxBodyBytes: gateway.int("max_body_bytes", {
        default: GATEWAY_LIMITS.maxBodyBytes,
        min: 1024,
        max: 16 * 1024 * 1024,
        doc: "Largest request body, in bytes.",
      }),
      unaryTimeoutMs: gateway.duration("unary_timeout", {
        default: GATEWAY_LIMITS.unaryTimeoutMs,
        min: "100ms",
        max: GATEWAY_LIMITS.maxTimeoutMs,
        doc: "Deadline of a unary call whose caller sets none; Chat has its own.",
      }),
      heartbeatMs: gateway.duration("heartbeat", {
        default: GATEWAY_LIMITS.heartbeatMs,
        min: "100ms",
        max: "10m",
        doc: "Silence on an event stream after which a comment is sent.",
      }),
      stallMs: gateway.duration("stall_timeout", {
        default: GATEWAY_LIMITS.stallMs,
        min: "100ms",
        max: "1h",
        doc: "How long the reader of an event stream may read nothing.",
      }),
    },
  };
}

/** Calls per second; 0 switches a limit off. */
function readRates(rates: ConfigSource) {
  const rate = (key: string, value: number, of: string) =>
    rates.number(key, { default: value, min: 0, max: MAX_RATE, doc: `${of} per second; 0 is no limit.` });
  return {
    tenantRunRate: rate("tenant_runs", GATEWAY_LIMITS.tenantRunRate, "Runs that a tenant may start"),
    tenantWriteRate: rate("tenant_writes", GATEWAY_LIMITS.tenantWriteRate, "Other changing calls of a tenant"),
    tenantReadRate: rate("tenant_reads", GATEWAY_LIMITS.tenantReadRate, "Reading calls of a tenant"),
    keyRunRate: rate("key_runs", GATEWAY_LIMITS.keyRunRate, "Runs that one credential may start"),
    keyWriteRate: rate("key_writes", GATEWAY_LIMITS.keyWriteRate, "Other changing calls of one credential"),
    keyReadRate: rate("key_reads", GATEWAY_LIMITS.keyReadRate, "Reading calls of one credential"),
    addressFailureRate: rate(
      "address_failures",
      GATEWAY_LIMITS.addressFailureRate,
      "Refused credentials of one address",
    ),
    rateBurstMs: rates.duration("burst", {
      default: GATEWAY_LIMITS.rateBurstMs,
      min: "100ms",
      max: "1h",
      doc: "What may come at once: this much time's worth of a rate.",
    }),
  };
}
