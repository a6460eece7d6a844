import { SpanKind } from "@opentelemetry/api";
import { factsOf } from "../rpc/errors.ts";
import type { CallOutcome, Observation } from "../rpc/observe.ts";
import type { Reason } from "../rpc/reasons.ts";
import type { Log, WriteLog } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { rpcMetrics } from "./rpc-metrics.ts";
import { contextOf, endSpan, inContext, startSpan } from "./trace.ts";
import { extract } from "./trace-context.ts";

/**
 * Reports the calls of a server: a span `<service>/<method>` under the caller's trace, rpc_server_* metrics, and one
 * log line when the call has ended (`rpc.call`; debug when it went well, info when the caller was at fault or over
 * a limit, warn when we were too busy or away, error when it was our bug).
 */
export function rpcObservation(log: Log, metrics: Metrics): Observation {
  const { requests, duration } = rpcMetrics(metrics);
  return {
    begin: ({ service, method, header }) => {
      const parent = extract(header);
      const attributes = { "rpc.system.name": "connectrpc", "rpc.service": service, "rpc.method": method };
      const span = startSpan(`${service}/${method}`, attributes, { parent, kind: SpanKind.SERVER });
      const where = contextOf(span, { parent });
      return {
        run: (fn) => inContext(where, fn),
        end: (outcome) => {
          requests.inc({ service, method, code: outcome.code });
          duration.observe({ service, method }, outcome.durationMs / 1_000);
          inContext(where, () => logCall(log, service, method, outcome));
          span.setAttributes({
            "rpc.response.status_code": outcome.code,
            "agentmesh.request_id": outcome.requestId,
            ...(outcome.tenantId === undefined ? {} : { "agentmesh.tenant_id": outcome.tenantId }),
          });
          if (severityOf(outcome) === "error") endSpan(span, outcome.error);
          else endSpan(span);
        },
      };
    },
  };
}

function logCall(log: Log, service: string, method: string, outcome: CallOutcome): void {
  const severity = severityOf(outcome);
  const write: WriteLog = log[severity];
  write(
    {
      event: "rpc.call",
      rpc_service: service,
      rpc_method: method,
      code: outcome.code,
      reason: outcome.reason,
      duration_ms: Math.round(outcome.durationMs),
      request_id: outcome.requestId,
      tenant_id: outcome.tenantId,
      err: severity === "error" || severity === "warn" ? outcome.error : undefined,
    },
    `${method}: ${outcome.code}`,
  );
}

/** Callers that ask for more than they may have at a time: told when to come again, counted, and no concern of an operator. */
const OVER_THEIR_LIMITS: ReadonlySet<string | undefined> = new Set<Reason>([
  "RATE_LIMITED",
  "QUOTA_EXCEEDED",
  "CONCURRENCY_LIMIT",
]);

function severityOf({ code, reason, error }: CallOutcome): "debug" | "info" | "warn" | "error" {
  switch (code) {
    case "ok":
    case "canceled":
      return "debug";
    case "unknown":
    case "internal":
    case "data_loss":
      return "error";
    case "unavailable":
    case "deadline_exceeded":
      return "warn";
    case "resource_exhausted":
      // Where it is the server that has no room for anybody, the limit is ours.
      return OVER_THEIR_LIMITS.has(reason) && factsOf(error)["scope"] !== "server" ? "info" : "warn";
    default:
      return "info";
  }
}
