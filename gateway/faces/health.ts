import type { JsonValue } from "@bufbuild/protobuf";
import type { Component } from "#platform/module/module.ts";
import type { HealthSource } from "#platform/rpc/health.ts";
import type { GatewayLimits } from "../limits.ts";
import type { Face } from "./face.ts";

type Status = "healthy" | "degraded" | "unhealthy";

interface ComponentHealth {
  readonly status: "healthy" | "unhealthy";
  readonly details: { readonly kind: Component["kind"]; readonly required: boolean; readonly latency_ms: number };
  /** In a word; what exactly is wrong is for the log, since this page needs no credential. */
  readonly error?: "timeout" | "unreachable";
}

export interface HealthOptions {
  readonly components: readonly Component[];
  readonly health: Pick<HealthSource, "ready">;
  readonly draining: () => boolean;
  readonly limits: Pick<GatewayLimits, "healthTtlMs" | "healthProbeMs">;
  readonly log: { warn(fields: object, message: string): void };
}

/**
 * `/health` tells people and dashboards about the components: 200 while the mesh answers, perhaps with less (degraded);
 * 503 when it cannot (unhealthy). `/health/ready` tells balancers whether to send requests here. `/health/live` tells a
 * supervisor whether to restart the process, which no absent dependency is a reason for.
 */
export function healthFaces(options: HealthOptions): Readonly<Record<string, Face>> {
  const report = cached(() => examine(options), options.limits.healthTtlMs);
  const ready = () => options.health.ready() && !options.draining();
  return {
    "/health": async () => {
      const { status, components, timestamp } = await report();
      return {
        status: status === "unhealthy" ? 503 : 200,
        json: { status, components, timestamp } as unknown as JsonValue,
      };
    },
    "/health/ready": async () => ({
      status: ready() ? 200 : 503,
      json: { status: ready() ? "ready" : options.draining() ? "draining" : "not_ready" },
    }),
    "/health/live": async () => ({ status: 200, json: { status: "alive" } }),
  };
}

async function examine({ components, limits, log }: HealthOptions) {
  const timestamp = new Date().toISOString();
  const results = await Promise.all(
    components.map(async (component) => [component, await probe(component, limits.healthProbeMs, log)] as const),
  );
  const failed = results.filter(([, { status }]) => status === "unhealthy").map(([component]) => component);
  const status: Status =
    failed.length === 0 ? "healthy" : failed.some(({ required }) => required) ? "unhealthy" : "degraded";
  return { status, components: Object.fromEntries(results.map(([{ name }, health]) => [name, health])), timestamp };
}

async function probe(component: Component, timeoutMs: number, log: HealthOptions["log"]): Promise<ComponentHealth> {
  const { name, kind, required } = component;
  const begun = performance.now();
  const details = () => ({ kind, required, latency_ms: Math.round(performance.now() - begun) });
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    await Promise.race([component.ping(signal), aborted(signal)]);
    return { status: "healthy", details: details() };
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
