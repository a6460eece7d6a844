import type { ConfigSource } from "#platform/config/source.ts";
import { MAX_RATE } from "#platform/redis/limiter.ts";
import { blockList } from "#platform/rpc/address-block.ts";
import type { PortLimits } from "#platform/rpc/port.ts";
import { GATEWAY_LIMITS, type GatewayLimits } from "./limits.ts";
import { readPortLimits } from "./port-config.ts";

export interface GatewayConfig {
  /** Addresses and CIDR blocks of proxies whose `X-Forwarded-For` is believed. */
  readonly trustedProxies: readonly string[];
  /** Origins whose scripts may call; undefined: any in one embedded process, none elsewhere. */
  readonly corsOrigins: readonly string[] | undefined;
  readonly metricsPublic: boolean;
  /** How many gateways share the rate limits. */
  readonly replicas: number;
  readonly limits: GatewayLimits;
  /** Limits of the port that the gateway is behind. */
  readonly port: PortLimits;
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
      ...readSizes(gateway),
      ...readStreams(gateway),
      ...readHeap(gateway),
      unaryTimeoutMs: gateway.duration("unary_timeout", {
        default: GATEWAY_LIMITS.unaryTimeoutMs,
        min: "100ms",
        max: GATEWAY_LIMITS.maxTimeoutMs,
        doc: "Deadline of a unary call whose caller sets none; Chat has its own.",
      }),
    },
    port: readPortLimits(gateway.section("port")),
  };
}

/** What of a request is read. */
function readSizes(gateway: ConfigSource) {
  return {
    maxBodyBytes: gateway.int("max_body_bytes", {
      default: GATEWAY_LIMITS.maxBodyBytes,
      min: 1024,
      max: 16 * 1024 * 1024,
      doc: "Largest request body, in bytes.",
    }),
    bodyTimeoutMs: gateway.duration("body_timeout", {
      default: GATEWAY_LIMITS.bodyTimeoutMs,
      min: "100ms",
      max: "10m",
      doc: "Time for a request's whole body to arrive.",
    }),
    maxHeaderBytes: gateway.int("header_bytes", {
      default: GATEWAY_LIMITS.maxHeaderBytes,
      min: 2048,
      max: 512 * 1024,
      doc: "Names and values of all headers of a request, in bytes; more is refused with 431.",
    }),
    maxHeaders: gateway.int("headers", {
      default: GATEWAY_LIMITS.maxHeaders,
      min: 16,
      max: 1000,
      doc: "Headers of one request; more is refused with 431.",
    }),
  };
}

/** What bounds a stream while it is open. */
function readStreams(gateway: ConfigSource) {
  return {
    maxTenantStreams: gateway.int("tenant_streams", {
      default: GATEWAY_LIMITS.maxTenantStreams,
      min: 1,
      doc: "Streams that one tenant may have open at one gateway.",
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
    streamRecheckMs: gateway.duration("stream_recheck", {
      default: GATEWAY_LIMITS.streamRecheckMs,
      min: "100ms",
      max: "10m",
      doc: "How often the credential of an open stream is verified again; a revocation is heard of sooner.",
    }),
    streamAgeMs: gateway.duration("stream_age", {
      default: GATEWAY_LIMITS.streamAgeMs,
      min: "1s",
      max: "168h",
      doc: "How long a stream may be open, up to a tenth less; then its client is told to connect again.",
    }),
  };
}

/** When new calls are refused for want of memory. */
function readHeap(gateway: ConfigSource) {
  const heapRefusePercent = gateway.int("heap_refuse_percent", {
    default: GATEWAY_LIMITS.heapRefusePercent,
    min: 1,
    max: 100,
    doc: "Percentage of the heap in use from which on new calls are refused with 503.",
  });
  const heapResumePercent = gateway.int("heap_resume_percent", {
    default: GATEWAY_LIMITS.heapResumePercent,
    min: 1,
    max: 100,
    doc: "Percentage below which they are taken again; not above gateway.heap_refuse_percent.",
  });
  if (heapResumePercent > heapRefusePercent) {
    gateway.problem(
      "heap_resume_percent",
      "is above gateway.heap_refuse_percent: calls would be taken and refused in turn",
    );
  }
  return { heapRefusePercent, heapResumePercent };
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
