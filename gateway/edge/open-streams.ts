import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { Answer } from "./answer.ts";

/** Counts the open streams of each tenant in this process, and allows so many at once. */
export interface OpenStreams {
  /** Tenants that have a stream open. */
  readonly tenants: number;
  /**
   * Takes a place for the answer of a stream and gives it back when that closes, however it ends. Throws
   * RESOURCE_EXHAUSTED CONCURRENCY_LIMIT when there is none.
   */
  lease(tenantId: string, answer: Pick<Answer, "onClose">): void;
}

const RETRY_AFTER_MS = 1000;

export function createOpenStreams(max: number, metrics: Pick<Metrics, "counter" | "gauge">): OpenStreams {
  const open = new Map<string, number>();
  const gauge = metrics.gauge("gateway_open_streams", "Streams that are open", []);
  const limited = metrics.counter("gateway_rate_limited_total", "Calls refused by a rate limit", ["limit", "class"]);
  return {
    get tenants() {
      return open.size;
    },
    lease(tenantId, answer) {
      const count = open.get(tenantId) ?? 0;
      if (count >= max) {
        limited.inc({ limit: "streams", class: "streams" });
        throw new AppError({
          code: Code.ResourceExhausted,
          reason: "CONCURRENCY_LIMIT",
          message: `Only ${max} streams may be open at once. Close one.`,
          facts: { limit: String(max) },
          retryAfterMs: RETRY_AFTER_MS,
        });
      }
      open.set(tenantId, count + 1);
      gauge.inc({});
      answer.onClose(() => {
        gauge.dec({});
        const left = (open.get(tenantId) ?? 1) - 1;
        if (left === 0) open.delete(tenantId);
        else open.set(tenantId, left);
      });
    },
  };
}
