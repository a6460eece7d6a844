import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import { defineTool } from "#platform/plugin/define-tool.ts";
import { EmbeddedLimiter } from "#platform/redis/embedded-limiter.ts";
import { createPageTokens } from "#platform/secrets/page-token.ts";
import { rootSecret } from "#platform/secrets/root-secret.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { createMetrics } from "#platform/telemetry/metrics.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { createToolEvents } from "../events.ts";
import { JournalStore } from "../store/journal-store.ts";
import { OutputStore } from "../store/output-store.ts";
import { TodoStore } from "../store/todo-store.ts";
import { ToolCallStore } from "../store/tool-call-store.ts";
import { caller, toolDatabase } from "../testing/tool-service.ts";
import { Journal } from "./journal.ts";
import { ToolRegistry } from "./registry.ts";
import { Tools } from "./tools.ts";

describe("an execution", { skip: skipWithoutPostgres() }, () => {
  test("whose reader stops reading is cancelled, and recorded before the reader goes on", {
    timeout: 20_000,
  }, async () => {
    await using database = await toolDatabase();
    const stopped = Promise.withResolvers<void>();
    const endless = defineTool<object>({
      name: "endless",
      description: "Works until it is told to stop.",
      input: { type: "object" },
      risk: "read_only",
      concurrencySafe: true,
      idempotent: true,
      timeoutMs: 60_000,
      maxOutputBytes: 100,
      async run(_args, { progress }, signal) {
        progress("at work");
        signal.addEventListener("abort", () => stopped.resolve());
        await stopped.promise;
        return "stopped";
      },
    });
    const tools = new Tools({
      registry: new ToolRegistry([endless]),
      store: new ToolCallStore(database.db),
      journal: new Journal({ store: new JournalStore(database.db), instanceId: newId("ins"), abandonAfterMs: 5_000 }),
      pageTokens: createPageTokens(rootSecret([randomBytes(32)])),
      events: createToolEvents(createLog({ level: "silent", service: "tool" }), createMetrics({ process: false })),
      outputs: new OutputStore(database.db),
      todos: new TodoStore(database.db),
      limiter: new EmbeddedLimiter(),
      overrides: new Map(),
      abandonAfterMs: 5_000,
    });
    const principal = caller();
    const signal = new AbortController().signal;
    const call = { principal, signal, requestId: newId("req"), ip: "", userAgent: "" };
    const ids = { callId: "call_1", runId: "run_1", sessionId: "ses_1", agentId: "", endUserId: "", requestId: "" };
    for await (const { message } of tools.execute(call, { tool: "endless", argumentsJson: "", ...ids })) {
      assert.equal(message, "at work");
      break;
    }
    const rows = await database.db.tenant(principal.tenantId, (tx) => tx.query("SELECT outcome FROM tool.tool_calls"));
    assert.deepEqual(rows, [{ outcome: "cancelled" }]);
  });
});
