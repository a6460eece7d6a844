import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { SpanStatusCode } from "@opentelemetry/api";
import { InMemorySpanExporter } from "@opentelemetry/sdk-trace";
import { startTracing } from "#platform/telemetry/tracing.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { caller, openTools, toolDatabase } from "./testing/tool-service.ts";

describe("the trace of a tool call", { skip: skipWithoutPostgres() }, () => {
  test("has a span tool.<name> below the call's, with masked arguments, and an error where the call failed", async () => {
    await using database = await toolDatabase();
    await using open = await openTools({ database: database.db });
    const exporter = new InMemorySpanExporter();
    const tracing = startTracing({ service: "tool", exporter });
    const by = caller();
    const args = { action: "add", text: "mail ada@example.com" };
    await open.execute(by, { tool: "todo", argumentsJson: JSON.stringify(args), sessionId: "ses_1" });
    await open.execute(by, { tool: "calculator", argumentsJson: '{"expression":"1/0"}' });
    await tracing.flush();
    const spans = exporter.getFinishedSpans();
    await tracing.shutdown();
    const [added, divided] = spans.filter(({ name }) => name.startsWith("tool."));
    assert.deepEqual([added?.name, divided?.name], ["tool.todo", "tool.calculator"]);
    assert.equal(added?.attributes["tool.name"], "todo");
    assert.equal(added?.attributes["tool.args"], '{"action":"add","text":"mail [EMAIL]"}');
    assert.equal(added?.attributes["agentmesh.tenant_id"], by.tenantId);
    assert.ok(Number(added?.attributes["tool.result_length"]) > 10);
    assert.deepEqual([added?.status.code, divided?.status.code], [SpanStatusCode.OK, SpanStatusCode.ERROR]);
    assert.equal(divided?.attributes["tool.outcome"], "tool_error");
    assert.equal(JSON.stringify(spans.map(({ events, attributes }) => [events, attributes])).includes("ada@"), false);
  });
});
