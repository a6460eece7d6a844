import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { defaultResource, resourceFromAttributes } from "@opentelemetry/resources";
import type { Sampler, SpanExporter } from "@opentelemetry/sdk-trace";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import type { Log } from "./log.ts";
import type { OnExported } from "./masking-exporter.ts";
import { maskingExporter } from "./masking-exporter.ts";
import { useTracer } from "./trace.ts";

/** The samplers of OpenTelemetry's `OTEL_TRACES_SAMPLER`; the ratio ones use {@link TracingOptions.ratio}. */
export const SAMPLERS = [
  "always_on",
  "always_off",
  "traceidratio",
  "parentbased_always_on",
  "parentbased_always_off",
  "parentbased_traceidratio",
] as const;

export type SamplerName = (typeof SAMPLERS)[number];

export interface TracingOptions {
  /** `service.name` of the spans. */
  readonly service: string;
  readonly version?: string;
  /** Base address of an OTLP/HTTP collector (`OTEL_EXPORTER_OTLP_ENDPOINT`). Absent: tracing is off. */
  readonly endpoint?: string | undefined;
  /** Default parentbased_traceidratio. */
  readonly sampler?: SamplerName;
  /** Share of traces that the ratio samplers take, 0 to 1. Default 1. */
  readonly ratio?: number;
  /** Told, at most once a minute, when the collector takes nothing. */
  readonly log?: Log;
  /** Instead of OTLP; turns tracing on. */
  readonly exporter?: SpanExporter;
}

/** Tracing of this process. */
export interface Tracing {
  readonly enabled: boolean;
  /** Sends what is waiting; false when that failed or took longer than `timeoutMs` (default 3 s). Never throws. */
  flush(timeoutMs?: number): Promise<boolean>;
  /** {@link flush}, and off. */
  shutdown(timeoutMs?: number): Promise<boolean>;
}

const DEFAULT_TIMEOUT_MS = 3_000;
const FAILURE_LOG_MS = 60_000;

// Far above what leaves the process, so that no value is cut before it is masked, and yet a bound on what waits.
const MAX_HELD_TEXT = 65_536;

let running = false;

/**
 * Turns tracing on for the whole process, if there is somewhere to send spans to; without, it is inert and costs
 * nothing (trace ids are propagated all the same, see `withSpan`). Throws when tracing is already on: spans belong to
 * the process, not to the caller.
 */
export function startTracing(options: TracingOptions): Tracing {
  const exporter = options.exporter ?? otlpExporter(options.endpoint);
  if (exporter === undefined) return { enabled: false, flush: async () => true, shutdown: async () => true };
  if (running) throw new Error("tracing is already on in this process");
  running = true;
  const provider = new TracerProvider({
    resource: defaultResource().merge(
      resourceFromAttributes({
        "service.name": options.service,
        ...(options.version === undefined ? {} : { "service.version": options.version }),
      }),
    ),
    sampler: samplerOf(options),
    spanLimits: { attributeValueLengthLimit: MAX_HELD_TEXT },
    spanProcessors: [new BatchSpanProcessor({ exporter: maskingExporter(exporter, reporter(options.log)) })],
  });
  useTracer(provider.getTracer("agentmesh"));
  return {
    enabled: true,
    flush: (timeoutMs = DEFAULT_TIMEOUT_MS) => settles(provider.forceFlush({ timeoutMillis: timeoutMs }), timeoutMs),
    shutdown: async (timeoutMs = DEFAULT_TIMEOUT_MS) => {
      useTracer(undefined);
      const flushed = await settles(provider.shutdown(), timeoutMs);
      running = false;
      return flushed;
    },
  };
}

function otlpExporter(endpoint: string | undefined): SpanExporter | undefined {
  if (endpoint === undefined) return undefined;
  const url = new URL(endpoint);
  // The standard variable holds a base address; some put the full one there.
  if (!url.pathname.endsWith("/v1/traces")) url.pathname = `${url.pathname.replace(/\/$/, "")}/v1/traces`;
  return new OTLPTraceExporter({ url: url.href, timeoutMillis: DEFAULT_TIMEOUT_MS });
}

function samplerOf({ sampler = "parentbased_traceidratio", ratio = 1 }: TracingOptions): Sampler {
  const [parentBased, own] = sampler.startsWith("parentbased_")
    ? [true, sampler.slice("parentbased_".length)]
    : [false, sampler];
  const root = rootSampler(own, ratio);
  return parentBased ? new ParentBasedSampler({ root }) : root;
}

function rootSampler(name: string, ratio: number): Sampler {
  if (name === "always_off") return new AlwaysOffSampler();
  return name === "always_on" ? new AlwaysOnSampler() : new TraceIdRatioBasedSampler(ratio);
}

function reporter(log: Log | undefined): OnExported {
  let quietUntil = Number.NEGATIVE_INFINITY;
  return (error) => {
    if (error === undefined || performance.now() < quietUntil) return;
    quietUntil = performance.now() + FAILURE_LOG_MS;
    log?.warn({ event: "trace.export.failed", err: error }, "spans could not be sent to the trace collector");
  };
}

async function settles(work: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  const { promise: late, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(resolve, timeoutMs, false);
  const done = work.then(
    () => true,
    () => false,
  );
  try {
    return await Promise.race([done, late]);
  } finally {
    clearTimeout(timer);
  }
}
