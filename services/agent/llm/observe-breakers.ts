import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { BreakerOptions } from "./breaker.ts";

/** Counts the breakers that are open or half open, by provider and model, and logs each change. */
export function observeBreakers(metrics: Metrics, log: Log): NonNullable<BreakerOptions["onChange"]> {
  const gauge = metrics.gauge("agent_model_breakers_open", "Circuit breakers of models that are open or half open.", [
    "provider",
    "model",
  ]);
  return ({ provider, model, credentialId, state }, before) => {
    if (before === "closed") gauge.inc({ provider, model });
    else if (state === "closed") gauge.dec({ provider, model });
    const fields = { event: "model.breaker", provider, model, credential_id: credentialId, state };
    if (state === "open") log.warn(fields, "a model fails: its breaker is open");
    else log.info(fields, "a model's breaker has changed");
  };
}
