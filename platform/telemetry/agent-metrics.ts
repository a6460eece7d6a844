import type { CounterMetric, GaugeMetric, HistogramMetric, Metrics } from "./metrics.ts";

/** The design document's metrics ("metrics collection", "third-party API integration"): its names, labels, buckets. */
export interface AgentMetrics {
  /** agent_requests_total; status `success` or `error`. */
  readonly requests: CounterMetric<"tenant_id" | "status">;
  /** agent_request_duration_seconds */
  readonly requestDuration: HistogramMetric<"tenant_id">;
  /** agent_iterations_total: a histogram of iterations per request, whatever its name says. */
  readonly iterations: HistogramMetric<"tenant_id">;
  /** agent_tool_calls_total; status `success` or `error`. */
  readonly toolCalls: CounterMetric<"tenant_id" | "tool_name" | "status">;
  /** agent_tool_duration_seconds */
  readonly toolDuration: HistogramMetric<"tool_name">;
  /** agent_tokens_total; type `input` or `output`. */
  readonly tokens: CounterMetric<"tenant_id" | "model" | "type">;
  /** agent_active_sessions */
  readonly activeSessions: GaugeMetric<"tenant_id">;
  /** api_call_total: calls to third-party APIs (HTTP tools, model providers); status `success` or `error`. */
  readonly apiCalls: CounterMetric<"api" | "status">;
  /** api_call_duration_seconds */
  readonly apiCallDuration: HistogramMetric<"api">;
}

// The Python client's defaults, which is what the document gets by naming none.
const DEFAULT_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/** Declares the agent's metrics, or finds them when another service of the process did. */
export function agentMetrics(metrics: Metrics): AgentMetrics {
  return {
    requests: metrics.counter("agent_requests_total", "Total number of agent requests", ["tenant_id", "status"]),
    requestDuration: metrics.histogram(
      "agent_request_duration_seconds",
      "Request duration in seconds",
      ["tenant_id"],
      [0.1, 0.5, 1, 2, 5, 10, 30],
    ),
    iterations: metrics.histogram(
      "agent_iterations_total",
      "Number of iterations per request",
      ["tenant_id"],
      [1, 2, 5, 10, 20, 50],
    ),
    toolCalls: metrics.counter("agent_tool_calls_total", "Total tool calls", ["tenant_id", "tool_name", "status"]),
    toolDuration: metrics.histogram(
      "agent_tool_duration_seconds",
      "Tool call duration",
      ["tool_name"],
      DEFAULT_BUCKETS,
    ),
    tokens: metrics.counter("agent_tokens_total", "Total tokens used", ["tenant_id", "model", "type"]),
    activeSessions: metrics.gauge("agent_active_sessions", "Number of active sessions", ["tenant_id"]),
    apiCalls: metrics.counter("api_call_total", "Total calls to third-party APIs", ["api", "status"]),
    apiCallDuration: metrics.histogram(
      "api_call_duration_seconds",
      "Duration of calls to third-party APIs in seconds",
      ["api"],
      DEFAULT_BUCKETS,
    ),
  };
}
