import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { QueueEvents } from "./run-queue.ts";

/** The queue's metrics and log lines. */
export function queueEvents(log: Log, metrics: Metrics): QueueEvents {
  const dispatched = metrics.counter("agent_queue_dispatches_total", "Queued runs that were brought to the bus again", [
    "tenant_id",
  ]);
  const waiting = metrics.gauge("agent_queue_runs", "Runs of all tenants that wait in the queue", []);
  const activations = metrics.counter(
    "agent_queue_activations_total",
    "Tries to begin a queued run, by what became of it",
    ["tenant_id", "outcome"],
  );
  const refused = metrics.counter("agent_queue_messages_refused_total", "Messages of the queue that are none", []);
  return {
    runDispatched: (tenant_id) => dispatched.inc({ tenant_id }),
    runsWait: (count) => waiting.set({}, count),
    runActivated(tenant_id, run_id, outcome) {
      activations.inc({ tenant_id, outcome });
      if (outcome === "dead") {
        log.error({ event: "agent.run.dead", tenant_id, run_id }, "a queued run was given up; it is a dead letter");
      }
    },
    activationFailed(tenant_id, run_id, attempt, err) {
      log.warn({ event: "agent.run.not_begun", tenant_id, run_id, attempt, err }, "a queued run could not be begun");
    },
    messageRefused(bus_subject) {
      refused.inc({});
      log.error({ event: "agent.queue.message_refused", bus_subject }, "a message of the queue is none");
    },
  };
}
