import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { BreakerOptions } from "./breaker.ts";

/** Counts the breakers that are open or half open, by provider and model. */
export function breakerMetric(metrics: Metrics): NonNullable<BreakerOptions["onChange"]> {
  const gauge = metrics.gauge("agent_model_breakers_open", "Circuit breakers of models that are open or half open.", [
    "provider",
    "model",
  ]);
  return ({ provider, model, state }, before) => {
    if (before === "closed") gauge.inc({ provider, model });
    else if (state === "closed") gauge.dec({ provider, model });
  };
}
