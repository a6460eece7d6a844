import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Code } from "@connectrpc/connect";
import { InMemorySpanExporter } from "@opentelemetry/sdk-trace";
import { AppError } from "../rpc/errors.ts";
import type { CallOutcome } from "../rpc/observe.ts";
import { createLog } from "./log.ts";
import { createMetrics } from "./metrics.ts";
import { rpcObservation } from "./rpc-observation.ts";
import { inject } from "./trace-context.ts";
import { startTracing } from "./tracing.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const outcome: CallOutcome = {
  code: "ok",
  reason: undefined,
  durationMs: 12.4,
  requestId: "req",
  tenantId: "ten_1",
  error: undefined,
};

describe("rpcObservation", () => {
  test("reports a call as span under the caller's trace, as metric and as log line", async () => {
    const exporter = new InMemorySpanExporter();
    const tracing = startTracing({ service: "agent", exporter });
    const lines: Record<string, unknown>[] = [];
    const destination = { write: (line: string) => lines.push(JSON.parse(line)) };
    const metrics = createMetrics({ process: false });
    const observation = rpcObservation(createLog({ level: "debug", service: "agent", destination }), metrics);
    const header = new Headers({ traceparent: `00-${TRACE}-00f067aa0ba902b7-01` });
    const info = { service: "agentmesh.agent.v1.ChatService", method: "Chat", header, requestId: "req" };

    const good = observation.begin(info);
    const onward: Record<string, string> = {};
    good.run(() => inject(onward));
    good.end(outcome);
    observation
      .begin(info)
      .end({ ...outcome, code: "not_found", reason: "RESOURCE_NOT_FOUND", error: new Error("gone") });
    observation.begin(info).end({ ...outcome, code: "internal", error: new Error("bug for a@b.com") });
    const full = { ...outcome, code: "resource_exhausted", error: new Error("full") };
    observation.begin(info).end({ ...full, reason: "CONCURRENCY_LIMIT" });
    observation.begin(info).end({ ...full, reason: "MODEL_OVERLOADED" });
    const reason = "CONCURRENCY_LIMIT";
    const ours = new AppError({ code: Code.ResourceExhausted, reason, message: "full", facts: { scope: "server" } });
    observation.begin(info).end({ ...full, reason, error: ours });

    await tracing.flush();
    const spans = exporter.getFinishedSpans();
    await tracing.shutdown();
    assert.deepEqual(
      spans.map(({ name }) => name),
      Array(6).fill("agentmesh.agent.v1.ChatService/Chat"),
    );
    assert.equal(onward["traceparent"], `00-${TRACE}-${spans[0]?.spanContext().spanId}-01`);
    assert.deepEqual(
      spans.map(({ status }) => status.message),
      [undefined, undefined, "bug for [EMAIL]", undefined, undefined, undefined],
    );
    assert.deepEqual(
      lines.map(({ level, code, err }) => [level, code, err !== undefined]),
      [
        ["debug", "ok", false],
        ["info", "not_found", false],
        ["error", "internal", true],
        ["info", "resource_exhausted", false],
        ["warn", "resource_exhausted", true],
        ["warn", "resource_exhausted", true],
      ],
    );
    assert.deepEqual(
      [lines[1]?.["trace_id"], lines[1]?.["reason"], lines[1]?.["duration_ms"]],
      [TRACE, "RESOURCE_NOT_FOUND", 12],
    );
    assert.match(await metrics.text(), /rpc_server_requests_total\{.*code="internal"\} 1/);
  });
});
