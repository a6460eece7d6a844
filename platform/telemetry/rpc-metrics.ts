import type { CounterMetric, HistogramMetric, Metrics } from "./metrics.ts";

/** What a server counts per RPC. `service` is the full protobuf name, `code` Connect's (`ok`, `not_found`, …). */
export interface RpcMetrics {
  /** rpc_server_requests_total */
  readonly requests: CounterMetric<"service" | "method" | "code">;
  /** rpc_server_duration_seconds; of a stream, until its end. */
  readonly duration: HistogramMetric<"service" | "method">;
}

/** Declares the RPC metrics, or finds them when another server of the process did. */
export function rpcMetrics(metrics: Metrics): RpcMetrics {
  return {
    requests: metrics.counter("rpc_server_requests_total", "RPCs handled", ["service", "method", "code"]),
    duration: metrics.histogram(
      "rpc_server_duration_seconds",
      "Duration of RPCs in seconds",
      ["service", "method"],
      [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    ),
  };
}
