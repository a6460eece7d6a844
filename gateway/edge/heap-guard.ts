import { getHeapStatistics } from "node:v8";
import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { GatewayLimits } from "../limits.ts";

/**
 * Refuses new calls while the heap is nearly full, so that those in flight can end: beyond its limit V8 ends the process
 * and with it every call (Envoy's overload manager does the same at 95 %). Lowered rate limits come long before this.
 */
export interface HeapGuard extends Disposable {
  readonly refuses: boolean;
  /** Throws UNAVAILABLE DEPENDENCY_DOWN with `dependency: memory` while new calls are refused. */
  check(): void;
}

export interface HeapGuardOptions {
  readonly limits: Pick<GatewayLimits, "heapRefusePercent" | "heapResumePercent" | "heapSampleMs">;
  readonly metrics: Pick<Metrics, "counter" | "gauge">;
  /** Told when refusing begins and ends, with the percentage of the heap that is in use. */
  readonly onChange?: ((refuses: boolean, percent: number) => void) | undefined;
  /** Percentage of the heap in use; without it of this process. */
  readonly heapPercent?: (() => number) | undefined;
}

/** A collection of the old generation takes a moment, and a client that is sent away may well have another server. */
const RETRY_AFTER_MS = 2_000;

/** Looks at the heap from now on until it is disposed of. It keeps no process alive. */
export function createHeapGuard({ limits, metrics, onChange, heapPercent = ownHeap }: HeapGuardOptions): HeapGuard {
  const refused = metrics.counter("gateway_heap_refused_total", "Calls refused because the heap was nearly full", []);
  const gauge = metrics.gauge("gateway_heap_refuses", "1 while new calls are refused for want of heap", []);
  gauge.set({}, 0);
  let refuses = false;
  const look = () => {
    const percent = heapPercent();
    // Two thresholds: at one alone every second call would be let in to push the heap over it again.
    const next = percent >= (refuses ? limits.heapResumePercent : limits.heapRefusePercent);
    if (next === refuses) return;
    refuses = next;
    gauge.set({}, refuses ? 1 : 0);
    onChange?.(refuses, percent);
  };
  look();
  const timer = setInterval(look, limits.heapSampleMs).unref();
  return {
    get refuses() {
      return refuses;
    },
    check() {
      if (!refuses) return;
      refused.inc({});
      throw new AppError({
        code: Code.Unavailable,
        reason: "DEPENDENCY_DOWN",
        message: "The server has no memory left for new calls. Try again soon.",
        facts: { dependency: "memory" },
        retryAfterMs: RETRY_AFTER_MS,
      });
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

function ownHeap(): number {
  const { used_heap_size, heap_size_limit } = getHeapStatistics();
  return (100 * used_heap_size) / heap_size_limit;
}
