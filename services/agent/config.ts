import type { ConfigSource } from "#platform/config/source.ts";
import type { Secret } from "#platform/telemetry/secret.ts";

export interface AgentConfig {
  /** How long an owner may be silent before another process ends its runs. */
  readonly leaseMs: number;
  readonly heartbeatMs: number;
  readonly reaperMs: number;
  /** Silence on an event stream before a heartbeat frame. */
  readonly streamHeartbeatMs: number;
  /** Longest life of a run. */
  readonly runTimeoutMs: number;
  readonly anthropic: { readonly apiKey: Secret<string> | undefined; readonly baseUrl: string };
}

export function readAgentConfig(source: ConfigSource): AgentConfig {
  const agent = source.section("agent");
  const anthropic = source.section("models.anthropic");
  const leaseMs = agent.duration("lease", {
    default: "10s",
    min: "500ms",
    max: "5m",
    doc: "How long a process that works on a run may be silent before the run is taken from it.",
  });
  const heartbeatMs = agent.duration("heartbeat", {
    default: "3s",
    min: "100ms",
    max: "1m",
    doc: "How often a process renews the leases of its runs; less than half of agent.lease.",
  });
  if (heartbeatMs * 2 > leaseMs) agent.problem("heartbeat", "must be at most half of agent.lease");
  return {
    leaseMs,
    heartbeatMs,
    reaperMs: agent.duration("reaper_interval", {
      default: "2s",
      min: "100ms",
      max: "5m",
      doc: "How often a process looks for runs whose owner is gone.",
    }),
    streamHeartbeatMs: agent.duration("stream_heartbeat", {
      default: "15s",
      min: "100ms",
      max: "5m",
      doc: "Silence on an event stream before a sign of life.",
    }),
    runTimeoutMs: agent.duration("run_timeout", {
      default: "1h",
      min: "1s",
      max: "24h",
      doc: "Longest life of a run; then it ends as failed with RUN_TIMEOUT.",
    }),
    anthropic: {
      apiKey: anthropic.secret("api_key", {
        optional: true,
        doc: "Key of the Anthropic API; without one the demo model answers.",
      }),
      baseUrl: anthropic.url("base_url", {
        default: "https://api.anthropic.com",
        doc: "Base address of the Anthropic API.",
      }),
    },
  };
}
