import type { ConfigSource } from "#platform/config/source.ts";
import { readPluginConfig } from "#platform/plugin/plugin-config.ts";
import { type ModelSettings, readModelSettings } from "./llm/config.ts";

export interface AgentConfig {
  /** How long an owner may be silent before another process ends its runs. */
  readonly leaseMs: number;
  readonly heartbeatMs: number;
  readonly reaperMs: number;
  readonly maxAttempts: number;
  readonly pool: PoolConfig;
  /** How long a deleted session is kept before it is erased. */
  readonly eraseAfterMs: number;
  /** How often a process looks for deleted sessions that others left. */
  readonly eraseEveryMs: number;
  readonly queue: QueueConfig;
  /** How long the context of a session is kept in the cache after a turn; 0: not at all. */
  readonly hotContextMs: number;
  /** How often a process looks for what is past its time. */
  readonly retentionEveryMs: number;
  /** Silence on an event stream before a heartbeat frame. */
  readonly streamHeartbeatMs: number;
  /** Longest life of a run. */
  readonly runTimeoutMs: number;
  /** How long an agent and its tools are known without being asked for again; 0: never. */
  readonly answersTtlMs: number;
  /** How long an answer may be given again when no model is available. */
  readonly cachedAnswerTtlMs: number;
  /** How long one hook of a plugin may take. */
  readonly pluginTimeoutMs: number;
  /** Plugins whose hooks and prompts agents may have. */
  readonly pluginModules: readonly string[];
  readonly models: ModelSettings;
}

/** How many runs a process works on, and how many wait for that. */
export interface PoolConfig {
  readonly maxRuns: number;
  readonly maxWaiting: number;
  readonly maxWaitingPerTenant: number;
  readonly maxWaitMs: number;
  readonly replicas: number;
}

/** How runs wait that nobody waits for. */
export interface QueueConfig {
  readonly maxQueuedPerTenant: number;
  /** How long a queued run is left to whoever was told of it. */
  readonly orphanAfterMs: number;
  readonly sweepMs: number;
  readonly maxAttempts: number;
  readonly perTenant: number;
}

function readQueue(queue: ConfigSource): QueueConfig {
  return {
    maxQueuedPerTenant: queue.int("max_queued_per_tenant", {
      default: 10_000,
      min: 1,
      max: 1_000_000,
      doc: "Runs of one tenant that are queued at the same time; more are refused with CONCURRENCY_LIMIT.",
    }),
    orphanAfterMs: queue.duration("orphan_after", {
      default: "60s",
      min: "100ms",
      max: "1h",
      doc: "How long a queued run is left to whoever the bus told of it; then it is dispatched again.",
    }),
    sweepMs: queue.duration("sweep_interval", {
      default: "1s",
      min: "50ms",
      max: "1m",
      doc: "How often a process looks for queued runs that are due.",
    }),
    maxAttempts: queue.int("max_attempts", {
      default: 5,
      min: 1,
      max: 100,
      doc: "Failures to begin a queued run for a reason inside the server; then it becomes a dead letter.",
    }),
    perTenant: queue.int("dispatched_per_tenant", {
      default: 20,
      min: 1,
      max: 1_000,
      doc: "Queued runs of one tenant that are dispatched in one look.",
    }),
  };
}

function readPool(pool: ConfigSource): PoolConfig {
  const count = (key: string, byDefault: number, doc: string) =>
    pool.int(key, { default: byDefault, min: 1, max: 100_000, doc });
  return {
    maxRuns: count("runs", 1_000, "Runs that one process works on at the same time."),
    maxWaiting: count("waiting", 2_000, "Runs that wait for that, of all tenants together."),
    maxWaitingPerTenant: count("waiting_per_tenant", 500, "Runs of one tenant that wait."),
    maxWaitMs: pool.duration("wait", {
      default: "10s",
      min: "10ms",
      max: "5m",
      doc: "Longest wait of a run; then it is refused with CONCURRENCY_LIMIT.",
    }),
    replicas: count("replicas", 1, "Agent processes that share the tenants' limits while Redis cannot be asked."),
  };
}

export function readAgentConfig(source: ConfigSource): AgentConfig {
  const agent = source.section("agent");
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
    pool: readPool(agent.section("pool")),
    queue: readQueue(agent.section("queue")),
    maxAttempts: agent.int("max_attempts", {
      default: 5,
      min: 1,
      max: 100,
      doc: "Processes that may work on one run, each after the one before it was lost; 1: a lost run fails.",
    }),
    reaperMs: agent.duration("reaper_interval", {
      default: "2s",
      min: "100ms",
      max: "5m",
      doc: "How often a process looks for runs whose owner is gone.",
    }),
    eraseAfterMs: agent.duration("erase_after", {
      default: "0s",
      min: "0s",
      max: "365d",
      doc: "How long what a deleted session held stays in the database, where nobody reaches it any more, before it is erased.",
    }),
    eraseEveryMs: agent.duration("erase_interval", {
      default: "30s",
      min: "100ms",
      max: "1h",
      doc: "How often a process looks for deleted sessions that are to be erased; for those of its own it looks at once.",
    }),
    hotContextMs: agent.duration("hot_context_ttl", {
      default: "2h",
      min: "0s",
      max: "24h",
      doc: "How long the cache keeps what a model is shown of a session after a turn, so that the next one need not read it from the database; 0s: not at all.",
    }),
    retentionEveryMs: agent.duration("retention_interval", {
      default: "1h",
      min: "100ms",
      max: "24h",
      doc: "How often a process looks for sessions, events of runs and answers that are past their time.",
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
    answersTtlMs: agent.duration("answers_ttl", {
      default: "10s",
      min: "0s",
      max: "5m",
      doc: "How long a process goes by what config and tool told it of an agent when no event tells it of a change; 0s asks every time.",
    }),
    cachedAnswerTtlMs: agent.duration("cached_answer_ttl", {
      default: "6h",
      min: "1s",
      max: "24h",
      doc: "How long an answer may be given again, to a tenant that wants that, when no model is available.",
    }),
    pluginTimeoutMs: agent.duration("plugin_hook_timeout", {
      default: "5s",
      min: "10ms",
      max: "1m",
      doc: "How long one hook of a plugin may take; then the text stays as it was.",
    }),
    pluginModules: readPluginConfig(source).modules,
    models: readModelSettings(source),
  };
}
