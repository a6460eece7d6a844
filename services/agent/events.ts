import type { UsageSummary } from "#gen/agentmesh/common/v1/usage_pb.ts";
import type { Call } from "#platform/rpc/call.ts";
import { agentLog } from "#platform/telemetry/agent-log.ts";
import { agentMetrics } from "#platform/telemetry/agent-metrics.ts";
import type { Log } from "#platform/telemetry/log.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import { contextOf, endSpan, inContext, startSpan } from "#platform/telemetry/trace.ts";
import { queueEvents } from "./queue/queue-events.ts";
import type { QueueEvents } from "./queue/run-queue.ts";
import type { StartedRun } from "./runs/run-begin.ts";
import type { RunEnd } from "./runs/run-end.ts";
import type { RunPause } from "./runs/run-work.ts";

/** One run as it is seen from outside: span, log lines and metrics. No method throws. */
export interface ObservedRun {
  /** Runs the work inside the span `agent.query`. */
  run<T>(work: () => Promise<T>): Promise<T>;
  failed(error: unknown): void;
  /** Without an end: the run was given up, and another process will end it. A run that waits is none yet for the metrics. */
  ended(end: RunEnd | RunPause | undefined, usage: UsageSummary, iterations: number): void;
}

/** Notices of a run that goes on with less than it was to have, in the order of the ladder. */
export const DEGRADATION_STEPS = ["MODEL_FALLBACK", "SIMPLIFIED_MODE", "CACHED_ANSWER", "CANNED_ANSWER"] as const;
export type DegradationStep = (typeof DEGRADATION_STEPS)[number];

/** Business events of the agent service, under the design document's names. */
export interface AgentEvents extends QueueEvents {
  runBegan(call: Call, started: StartedRun): ObservedRun;
  runTakenUp(tenantId: string, runId: string, attempt: number): void;
  runReaped(tenantId: string, runId: string): void;
  /** A run went down a step of its ladder of models; `reason`: that of the notice which tells of it. */
  degraded(reason: DegradationStep): void;
  /** A model was called of which no price is known. */
  priceUnknown(provider: string, model: string): void;
}

export function createAgentEvents(log: Log, metrics: Metrics): AgentEvents {
  const measured = agentMetrics(metrics);
  const degradations = metrics.counter(
    "agent_degradations_total",
    "Steps that runs went down from the models that they were to have",
    ["step"],
  );
  return {
    runBegan(call, { run, session, history }) {
      const tenant_id = call.principal.tenantId;
      const about = { tenant_id, session_id: session.session_id, run_id: run.run_id, request_id: call.requestId };
      const lines = agentLog(log.child(about));
      const startedAt = performance.now();
      const inputLength = lengthOf(history.at(-1)?.content);
      lines.queryStart({ inputLength });
      measured.activeSessions.inc({ tenant_id });
      const span = startSpan("agent.query", {
        "agentmesh.tenant_id": tenant_id,
        "agentmesh.run_id": run.run_id,
        user_input_length: inputLength,
      });
      let failure: unknown;
      return {
        run: (work) => inContext(contextOf(span), work),
        failed(error) {
          failure = error;
          lines.error(error, { run_id: run.run_id });
        },
        ended(end, usage, iterations) {
          const seconds = (performance.now() - startedAt) / 1000;
          if (end?.kind === "suspended") {
            measured.activeSessions.dec({ tenant_id });
            log.info({ event: "agent.run.suspended", ...about }, "a run waits");
            endSpan(span);
            return;
          }
          const succeeded = end !== undefined && end.kind !== "failed";
          const responseLength = end?.kind === "completed" ? end.response.length : 0;
          measured.activeSessions.dec({ tenant_id });
          measured.requests.inc({ tenant_id, status: succeeded ? "success" : "error" });
          measured.requestDuration.observe({ tenant_id }, seconds);
          measured.iterations.observe({ tenant_id }, iterations);
          for (const { model, inputTokens, cacheReadTokens, cacheWriteTokens, outputTokens } of usage.byModel) {
            const input = Number(inputTokens + cacheReadTokens + cacheWriteTokens);
            measured.tokens.inc({ tenant_id, model, type: "input" }, input);
            measured.tokens.inc({ tenant_id, model, type: "output" }, Number(outputTokens));
          }
          lines.queryComplete({ responseLength, iterations, durationMs: Math.round(seconds * 1000) });
          span.setAttributes({ response_length: responseLength });
          if (failure === undefined) endSpan(span);
          else endSpan(span, failure);
        },
      };
    },

    runTakenUp(tenantId, runId, attempt) {
      const about = { event: "agent.run.taken_up", tenant_id: tenantId, run_id: runId, attempt };
      log.warn(about, "a run's owner is gone; the run goes on here");
    },
    runReaped(tenantId, runId) {
      measured.requests.inc({ tenant_id: tenantId, status: "error" });
      log.warn({ event: "agent.run.owner_lost", tenant_id: tenantId, run_id: runId }, "a run's owner is gone");
    },

    ...queueEvents(log, metrics),

    degraded(reason) {
      degradations.inc({ step: reason.toLowerCase() });
    },

    priceUnknown(provider, model) {
      log.warn({ event: "model.price_unknown", provider, model }, "no price is known; set models.prices");
    },
  };
}

function lengthOf(content: StartedRun["history"][number]["content"] | undefined): number {
  let length = 0;
  for (const part of content ?? []) if (part.type === "text") length += part.text.length;
  return length;
}
