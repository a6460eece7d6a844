import { createRegistry, type DescService } from "@bufbuild/protobuf";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import type { Platform } from "#platform/module/module.ts";
import { watchLoad } from "#platform/resilience/load-factor.ts";
import { toConnectError } from "#platform/rpc/connect-error.ts";
import { type HealthSource, mountHealth } from "#platform/rpc/health.ts";
import type { Observation } from "#platform/rpc/observe.ts";
import { mountReflection } from "#platform/rpc/reflection.ts";
import { requestIdOf } from "#platform/rpc/request-id.ts";
import type { GatewayConfig } from "./config.ts";
import { createAddressGuard } from "./edge/address-guard.ts";
import { createAdmission, draining } from "./edge/admission.ts";
import { createCors } from "./edge/cors.ts";
import { createHeapGuard } from "./edge/heap-guard.ts";
import { createOpenStreams, type OpenStreams } from "./edge/open-streams.ts";
import { createPeerResolver } from "./edge/peer.ts";
import { createRateLimits } from "./edge/rate-limits.ts";
import { createStreamWatch, type StreamWatch } from "./edge/stream-watch.ts";
import { CredentialVerifier } from "./edge/verifier.ts";
import { descriptorsFace } from "./faces/descriptors.ts";
import { docsFace } from "./faces/docs.ts";
import { healthFaces } from "./faces/health.ts";
import { metricsFace } from "./faces/metrics.ts";
import { openApiFace } from "./faces/openapi.ts";
import { rootFace } from "./faces/root.ts";
import { createGatewayListener, type GatewayListener } from "./listener.ts";
import { openApiDocument } from "./openapi/document.ts";
import { mountPassThrough } from "./pass-through.ts";
import { createAliases, DOCUMENT_ALIASES } from "./rest/document-aliases.ts";
import { MessageWriter } from "./rest/json/write-message.ts";
import { createRestDoor } from "./rest/rest-door.ts";
import { createRpcDoor } from "./rpc-door.ts";
import { createEdgePipeline } from "./rpc-pipeline.ts";

/** What the gateway needs of its process. */
export type EdgePlatform = Pick<
  Platform,
  "mode" | "log" | "metrics" | "bus" | "links" | "limiter" | "components" | "health"
>;

/** A built gateway: the edge of one process. */
export interface Gateway {
  readonly edge: GatewayListener;
  readonly verifier: CredentialVerifier;
  readonly streams: OpenStreams;
  readonly watch: StreamWatch;
  isDraining(): boolean;
  /** Refuses new calls from now on; resolves when those in flight have ended, or have been ended by the signal. */
  drain(signal: AbortSignal): Promise<void>;
  stop(): Promise<void>;
}

const METRICS_PATH = "/metrics";

/** Of the API, not of the program: the `v1` of the packages and paths. */
const API_VERSION = "1";

/** @param services those whose public methods are mounted */
export function createGateway(
  config: GatewayConfig,
  platform: EdgePlatform,
  observation: Observation,
  services: readonly DescService[],
): Gateway {
  const { limits } = config;
  const { links } = platform;
  const shutdown = new AbortController();
  let isDraining = false;
  const watch = createStreamWatch(limits);
  const verifier = new CredentialVerifier(links, limits, watch.recheck);
  // Their timers must not outlive a gateway that could not be made.
  using watches = new DisposableStack();
  const heap = watches.use(
    createHeapGuard({
      limits,
      metrics: platform.metrics,
      onChange: (refuses, percent) => {
        const details = { refuses, heap_percent: Math.round(percent) };
        const said = refuses ? "the heap is nearly full: new calls are refused" : "new calls are taken again";
        platform.log.warn({ event: "heap.refuses", details }, said);
      },
    }),
  );
  const load = watches.use(
    watchLoad({
      queue: () => edge.inFlight / limits.fullInFlight,
      onChange: (factor, { eventLoopDelayMs, heap, queue }) => {
        loadFactor.set({}, factor);
        const details = { factor, eventLoopDelayMs: Math.round(eventLoopDelayMs), heap, queue };
        platform.log.warn({ event: "load.factor", details }, "the load has changed, and rate limits with it");
      },
    }),
  );
  const loadFactor = platform.metrics.gauge("gateway_load_factor", "What rate limits are multiplied with", []);
  loadFactor.set({}, load.factor);
  const rates = createRateLimits({
    ...platform,
    limits,
    replicas: config.replicas,
    factor: () => load.factor,
  });
  const streams = createOpenStreams(limits.maxTenantStreams, platform.metrics);
  const admission = createAdmission({
    verifier,
    addresses: createAddressGuard(limits, platform.metrics),
    rates,
    streams,
    watch,
    heap,
    maxCredentialLength: limits.maxCredentialLength,
    draining: () => isDraining,
  });
  const aliases = createAliases(DOCUMENT_ALIASES);
  const rest = createRestDoor({ services, links, admission, observation, aliases, limits });
  const document = openApiDocument(rest.routes, aliases, API_VERSION);
  const rpc = createRpcDoor(
    (router) => {
      mountPassThrough(router, services, links, limits);
      mountHealth(
        router,
        edgeHealth(platform.health, services, () => isDraining),
      );
      mountReflection(router, [...services, Health]);
    },
    createEdgePipeline(admission, observation, limits, shutdown.signal),
    { log: platform.log, bodyTimeoutMs: limits.bodyTimeoutMs },
  );
  const edge = createGatewayListener({
    peers: createPeerResolver(config.trustedProxies),
    cors: createCors(config.corsOrigins ?? (platform.mode === "embedded" ? ["*"] : [])),
    rpc,
    rest,
    faces: {
      "/": rootFace,
      ...healthFaces({
        components: platform.components,
        ready: () => platform.health.ready(),
        draining: () => isDraining,
        ttlMs: limits.healthTtlMs,
        probeMs: limits.healthProbeMs,
        log: platform.log,
      }),
      [METRICS_PATH]: metricsFace(platform.metrics, {
        isPublic: config.metricsPublic,
        trustsProxies: config.trustedProxies.length > 0,
      }),
      "/openapi.json": openApiFace(document),
      "/docs": docsFace(document),
      "/api.binpb": descriptorsFace(services),
    },
    // Metrics answer near addresses without a credential, and the browser of an operator is near.
    sameOrigin: new Set([METRICS_PATH]),
    writer: new MessageWriter(createRegistry(file_google_rpc_error_details)),
    limits,
    requestId: requestIdOf,
  });
  const owned = watches.move();
  return {
    edge,
    verifier,
    streams,
    watch,
    isDraining: () => isDraining,
    async stop() {
      owned.dispose();
      await verifier[Symbol.asyncDispose]();
    },
    async drain(signal) {
      isDraining = true;
      const end = () => {
        shutdown.abort(toConnectError(draining(), ""));
        edge.abort();
      };
      if (signal.aborted) end();
      else signal.addEventListener("abort", end, { once: true });
      await edge.drain();
      signal.removeEventListener("abort", end);
    },
  };
}

/** What this process shows of itself: the public services, wherever they run. */
function edgeHealth(source: HealthSource, services: readonly DescService[], isDraining: () => boolean): HealthSource {
  return {
    ready: () => source.ready() && !isDraining(),
    services: () => services.map(({ typeName }) => typeName),
    onChange: (listener) => source.onChange(listener),
  };
}
