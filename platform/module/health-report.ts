import type { Component } from "./module.ts";

type Status = "healthy" | "degraded" | "unhealthy";

interface ComponentHealth {
  readonly status: Status;
  readonly details: { readonly kind: Component["kind"]; readonly required: boolean; readonly latency_ms: number };
  /** In a word; what exactly is wrong is for the log, since this page needs no credential. */
  readonly error?: "timeout" | "unreachable";
}

export interface HealthReportOptions {
  /** Read at each examination. */
  readonly components: readonly Component[];
  readonly ready: () => boolean;
  readonly draining: () => boolean;
  /** How long an examination counts, in milliseconds. */
  readonly ttlMs: number;
  /** A component that does not answer within this counts as away, in milliseconds. */
  readonly probeMs: number;
  readonly log: { warn(fields: object, message: string): void };
}

/** A page in JSON. */
export interface HealthPage {
  readonly status: number;
  readonly json: Readonly<Record<string, unknown>>;
}

/**
 * The pages of a process about itself, by path. `/health` tells people and dashboards about the components: 200 while the
 * process can do its work, perhaps with less (degraded); 503 when it cannot (unhealthy). `/health/ready` tells balancers
 * whether to send requests here. `/health/live` tells a supervisor whether to restart the process, which no absent
 * dependency is a reason for.
 */
export function healthPages(options: HealthReportOptions): Readonly<Record<string, () => Promise<HealthPage>>> {
  const report = cached(() => examine(options), options.ttlMs);
  const ready = () => options.ready() && !options.draining();
  return {
    "/health": async () => {
      const { status, components, timestamp } = await report();
      return { status: status === "unhealthy" ? 503 : 200, json: { status, components, timestamp } };
    },
    "/health/ready": async () => ({
      status: ready() ? 200 : 503,
      json: { status: ready() ? "ready" : options.draining() ? "draining" : "not_ready" },
    }),
    "/health/live": async () => ({ status: 200, json: { status: "alive" } }),
  };
}

async function examine({ components, probeMs, log }: HealthReportOptions) {
  const timestamp = new Date().toISOString();
  const results = await Promise.all(
    components.map(async (component) => [component, await probe(component, probeMs, log)] as const),
  );
  const without = results.filter(([, health]) => health.status === "unhealthy");
  const status: Status = without.some(([{ required }]) => required)
    ? "unhealthy"
    : results.every(([, health]) => health.status === "healthy")
      ? "healthy"
      : "degraded";
  return { status, components: Object.fromEntries(results.map(([{ name }, health]) => [name, health])), timestamp };
}

async function probe(
  component: Component,
  timeoutMs: number,
  log: HealthReportOptions["log"],
): Promise<ComponentHealth> {
  const { name, kind, required } = component;
  const begun = performance.now();
  const details = () => ({ kind, required, latency_ms: Math.round(performance.now() - begun) });
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    await Promise.race([component.ping(signal), aborted(signal)]);
    return { status: component.degraded?.() === true ? "degraded" : "healthy", details: details() };
  } catch (error) {
    log.warn({ event: "health.component", component: name, err: error }, "a component does not answer");
    return { status: "unhealthy", details: details(), error: signal.aborted ? "timeout" : "unreachable" };
  }
}

/** A component that ignores its signal must not hold the page. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) =>
    signal.addEventListener("abort", () => reject(signal.reason), { once: true }),
  );
}

/** One examination at a time, and its result for a while: this page must not be a way to load the backends. */
function cached<T>(make: () => Promise<T>, ttlMs: number): () => Promise<T> {
  let current: { value: Promise<T>; until: number } | undefined;
  return () => {
    if (current === undefined || current.until <= performance.now()) {
      const entry = { value: make(), until: Number.POSITIVE_INFINITY };
      const settled = () => {
        entry.until = performance.now() + ttlMs;
      };
      entry.value.then(settled, settled);
      current = entry;
    }
    return current.value;
  };
}
