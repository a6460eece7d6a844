import type { Call } from "#platform/rpc/call.ts";
import { agentLog } from "#platform/telemetry/agent-log.ts";
import { agentMetrics } from "#platform/telemetry/agent-metrics.ts";
import type { Log } from "#platform/telemetry/log.ts";
import { maskJson } from "#platform/telemetry/mask.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import { contextOf, endSpan, inContext, startSpan } from "#platform/telemetry/trace.ts";
import type { ExecutedCall } from "./domain/execution.ts";
import { lengthOf } from "./domain/tool-result.ts";
import type { ToolCallRequest } from "./domain/tools.ts";

/** One execution as it is seen from outside. No method throws. */
export interface ObservedCall {
  ended(executed: ExecutedCall): void;
  /** The tool ignores its signal and runs on, unheard. */
  abandoned(): void;
  /** What a provider made for the call was not let go of. */
  disposeFailed(provider: string, error: unknown): void;
}

/** Business events of the tool service, under the design document's names. */
export interface ToolEvents {
  /** Runs the work inside the span `tool.<name>`. */
  observe<T>(call: Call, request: ToolCallRequest, work: (observed: ObservedCall) => Promise<T>): Promise<T>;
}

export function createToolEvents(log: Log, metrics: Metrics): ToolEvents {
  const { toolCalls, toolDuration } = agentMetrics(metrics);
  return {
    async observe(call, { tool, callId, sessionId, runId }, work) {
      const tenant_id = call.principal.tenantId;
      const about = { tenant_id, session_id: sessionId, run_id: runId, request_id: call.requestId };
      const ownLog = log.child(about);
      const lines = agentLog(ownLog);
      const span = startSpan(`tool.${tool}`, { "tool.name": tool, "agentmesh.tenant_id": tenant_id });
      let failure: { error: unknown } | undefined;
      const observed: ObservedCall = {
        ended({ outcome, result, args, durationMs, error }) {
          const success = !result.isError;
          if (outcome === "replayed") {
            ownLog.info(
              { event: "tool.replayed", tool, call_id: callId },
              "a repeated call got its first answer again",
            );
          } else if (outcome === "unknown") {
            const fields = { event: "tool.outcome_unknown", tool, call_id: callId };
            ownLog.warn(fields, "a call was lost with its process and is not run again");
          } else {
            toolCalls.inc({ tenant_id, tool_name: tool, status: success ? "success" : "error" });
            toolDuration.observe({ tool_name: tool }, durationMs / 1000);
            if (outcome === "failed") lines.error(error, { tool, call_id: callId });
            lines.toolCall({ tool, callId, args, durationMs: Math.round(durationMs), success });
          }
          span.setAttributes({
            "tool.args": JSON.stringify(maskJson(args)) ?? "",
            "tool.result_length": lengthOf(result),
            "tool.outcome": outcome,
          });
          if (!success && outcome !== "replayed")
            failure = { error: error ?? new Error(`the call ended as ${outcome}`) };
        },
        abandoned() {
          ownLog.warn(
            { event: "tool.abandoned", tool, call_id: callId },
            "a tool ignores its signal and was left behind",
          );
        },
        disposeFailed(provider, error) {
          const fields = { event: "tool.dispose_failed", tool, call_id: callId, provider, err: error };
          ownLog.warn(fields, "a provider could not let go of what it made for a call");
        },
      };
      return inContext(contextOf(span), async () => {
        try {
          return await work(observed);
        } catch (error) {
          failure = { error };
          throw error;
        } finally {
          if (failure === undefined) endSpan(span);
          else endSpan(span, failure.error);
        }
      });
    },
  };
}
