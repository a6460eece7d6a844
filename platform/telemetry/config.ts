import type { ConfigSource } from "../config/source.ts";
import type { LogLevel } from "./log.ts";
import { LOG_LEVELS } from "./log.ts";
import type { LabelLimits } from "./metrics.ts";
import type { SamplerName } from "./tracing.ts";
import { SAMPLERS } from "./tracing.ts";

/** How a process logs, counts and traces. */
export interface TelemetryConfig {
  readonly log: { readonly level: LogLevel; readonly pretty: boolean };
  readonly trace: {
    readonly endpoint: string | undefined;
    readonly sampler: SamplerName;
    readonly ratio: number;
    readonly flushTimeoutMs: number;
  };
  readonly metrics: { readonly limits: LabelLimits };
}

/** Reads the section `telemetry`. */
export function readTelemetryConfig(source: ConfigSource): TelemetryConfig {
  const log = source.section("telemetry.log");
  const trace = source.section("telemetry.trace");
  const metrics = source.section("telemetry.metrics");
  const format = log.choice("format", ["auto", "json", "pretty"], {
    default: "auto",
    doc: "Form of log lines; auto is pretty on a terminal and JSON elsewhere.",
  });
  return {
    log: {
      level: log.choice("level", LOG_LEVELS, { default: "info", doc: "Least severe log level that is written." }),
      pretty: format === "pretty" || (format === "auto" && process.stdout.isTTY === true),
    },
    trace: {
      endpoint: trace.url("endpoint", {
        optional: true,
        doc: "Base address of an OTLP/HTTP collector; without one nothing is recorded.",
      }),
      sampler: trace.choice("sampler", SAMPLERS, {
        default: "parentbased_traceidratio",
        doc: "Which traces are recorded, under the names of OpenTelemetry's OTEL_TRACES_SAMPLER.",
      }),
      ratio: trace.number("ratio", {
        default: 1,
        min: 0,
        max: 1,
        doc: "Share of traces that the traceidratio samplers take.",
      }),
      flushTimeoutMs: trace.duration("flush_timeout", {
        default: "3s",
        min: "0s",
        max: "60s",
        doc: "Longest wait for the collector when the process stops.",
      }),
    },
    metrics: {
      limits: {
        tenants: metrics.int("tenants", {
          default: 100,
          min: 1,
          max: 10_000,
          doc: "Tenants with metric series of their own, the busiest first; the rest are `other`.",
        }),
        tools: metrics.int("tools", { default: 200, min: 1, max: 10_000, doc: "The same for tool names." }),
        models: metrics.int("models", { default: 50, min: 1, max: 10_000, doc: "The same for models." }),
      },
    },
  };
}
