import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { newId } from "#platform/id.ts";
import { defineTool, type ToolContext, type ToolOutput } from "#platform/plugin/define-tool.ts";
import { ToolError } from "#platform/plugin/tool-error.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, refusal } from "#platform/testing/service-under-test.ts";
import { caller, type OpenTools, openTools, toolDatabase } from "./testing/tool-service.ts";

type Run = (
  args: Record<string, unknown>,
  context: ToolContext,
  signal: AbortSignal,
) => Promise<ToolOutput> | ToolOutput;

const MAX_OUTPUT = 1_000;

/** A tool that behaves as a test says. */
function faulty(name: string, run: Run, timeoutMs = 30_000) {
  return defineTool<Record<string, unknown>>({
    name,
    description: "A tool for tests.",
    input: { type: "object" },
    risk: "read_only",
    concurrencySafe: true,
    idempotent: false,
    timeoutMs,
    maxOutputBytes: MAX_OUTPUT,
    run,
  });
}

const forever = new Promise<never>(() => {});
/** What the tools were told, by name. */
const heard: Record<string, unknown> = {};
let begun = Promise.withResolvers<void>();
/** Yields once for each frame that the test of progress has received. */
let seen: AsyncIterator<unknown>;

const tools = [
  faulty("throws", () => {
    throw new Error("connect to postgres://admin:hunter2@10.0.0.1 failed");
  }),
  faulty("rejects", async () => Promise.reject("just a text, of customer 4111 1111 1111 1111")),
  faulty("explains", async () => {
    await sleep(1);
    throw new ToolError("There is no such order.");
  }),
  faulty("hangs", () => forever, 150),
  faulty("listens", async (_args, _context, signal) => sleep(60_000, "late", { signal }), 150),
  faulty(
    "late",
    async (_args, _context, signal) => {
      await sleep(60_000, undefined, { signal }).catch(() => {});
      heard["late"] = signal.reason;
      return "nobody hears this";
    },
    50,
  ),
  faulty("waits", async (_args, _context, signal) => {
    begun.resolve();
    await sleep(60_000, undefined, { signal }).catch(() => {});
    heard["waits"] = signal.aborted;
    throw signal.reason;
  }),
  faulty("deaf", () => {
    begun.resolve();
    return forever;
  }),
  faulty("floods", () => "é".repeat(25 * 1024 * 1024)),
  faulty("binary", () => "\0\u0001\ud800".repeat(10)),
  faulty("image", () => ({
    content: [{ type: "image", mediaType: "image/png", data: Buffer.from([137, 80, 78, 71]) }],
  })),
  faulty(
    "mistypes",
    ({ as }) => ({ nothing: undefined, number: 5, bytes: Buffer.alloc(9), object: {} })[String(as)] as never,
  ),
  faulty("reports", async (_args, { progress }) => {
    progress("started");
    await seen.next();
    for (let i = 0; i < 100_000; i++) progress(`step ${i}`, i / 100_000);
    await seen.next();
    progress("odd", Number.NaN);
    await seen.next();
    return "done";
  }),
  faulty("tells", (args, { progress: _, call, ...rest }) => ({
    structured: { args, tenant: call.principal.tenantId, ...rest },
  })),
];

describe("the execution of a tool", { skip: skipWithoutPostgres() }, () => {
  let database: TestDatabase;
  let open: OpenTools;
  before(async () => {
    database = await toolDatabase();
    open = await openTools({ database: database.db, tools });
  });
  after(async () => {
    await open?.[Symbol.asyncDispose]();
    await database?.drop();
  });

  const recorded = (by: Principal) =>
    database.db.tenant(by.tenantId, (tx) =>
      tx.query<Record<string, unknown>>("SELECT * FROM tool.tool_calls ORDER BY created_at"),
    );
  const lines = (event: string, of: Principal) =>
    open.service.logged.filter((line) => line["event"] === event && line["tenant_id"] === of.tenantId);

  test("that throws is a result with a text that says nothing of the inside, and a line in the log that does", async () => {
    for (const tool of ["throws", "rejects"]) {
      const by = caller();
      const { results, result, text } = await open.execute(by, { tool });
      assert.deepEqual([results.length, result.isError, text], [1, true, `The tool "${tool}" failed.`]);
      assert.equal(lines("agent.error", by).length, 1);
      assert.equal((await recorded(by))[0]?.["outcome"], "failed");
      assert.doesNotMatch(JSON.stringify(open.service.logged), /hunter2|4111/);
    }
    assert.match(JSON.stringify(open.service.logged), /connect to postgres/);
  });

  test("that refuses says so in its own words", async () => {
    const by = caller();
    const { result, text } = await open.execute(by, { tool: "explains" });
    assert.deepEqual([result.isError, text], [true, "There is no such order."]);
    assert.equal(lines("agent.error", by).length, 0);
    assert.equal((await recorded(by))[0]?.["outcome"], "tool_error");
  });

  test("that takes too long ends, whether the tool hears its signal or not", async () => {
    for (const [tool, limit, abandoned] of [
      ["listens", 150, 0],
      ["hangs", 150, 1],
      ["late", 50, 0],
    ] as const) {
      const by = caller();
      const { result, text } = await open.execute(by, { tool });
      assert.deepEqual([result.isError, text], [true, `The tool "${tool}" did not finish within ${limit} ms.`]);
      assert.equal(lines("tool.abandoned", by).length, abandoned, tool);
      assert.equal((await recorded(by))[0]?.["outcome"], "timeout");
    }
    assert.equal((heard["late"] as Error).name, "TimeoutError");
  });

  test("ends when the caller leaves: the tool's signal fires, and the call is recorded", async () => {
    for (const tool of ["waits", "deaf"]) {
      const by = caller();
      begun = Promise.withResolvers();
      const abort = new AbortController();
      const call = refusal(open.execute(by, { tool }, { signal: abort.signal }));
      await begun.promise;
      abort.abort();
      assert.equal((await call).code, Code.Canceled);
      let rows = await recorded(by);
      for (; rows.length === 0; rows = await recorded(by)) await sleep(20);
      assert.deepEqual([rows[0]?.["outcome"], rows[0]?.["is_error"]], ["cancelled", true]);
    }
    assert.equal(heard["waits"], true);
  });

  test("ends at the caller's deadline", async () => {
    const by = caller();
    const late = await refusal(open.execute(by, { tool: "deaf" }, { deadline: Date.now() + 200 }));
    assert.equal(late.code, Code.DeadlineExceeded);
  });

  test("is not started for a caller who has left", async () => {
    const by = caller();
    begun = Promise.withResolvers();
    const { code } = await refusal(open.execute(by, { tool: "deaf" }, { signal: AbortSignal.abort() }));
    assert.equal(code, Code.Canceled);
    assert.equal(await Promise.race([begun.promise.then(() => "begun"), sleep(50, "not begun")]), "not begun");
  });

  test("that answers 50 MB shows the beginning, cut at a whole character, and says so", async () => {
    const by = caller();
    const { result, text } = await open.execute(by, { tool: "floods" });
    assert.deepEqual([result.isError, result.truncated], [false, true]);
    assert.equal(text, "é".repeat(MAX_OUTPUT / 2));
    assert.equal((await recorded(by))[0]?.["result_length"], MAX_OUTPUT / 2);
  });

  test("that answers with bytes as text or with an image is sent in a form that arrives", async () => {
    const { text } = await open.execute(caller(), { tool: "binary" });
    assert.equal(text, "\ufffd\u0001\ufffd".repeat(10));
    const { result } = await open.execute(caller(), { tool: "image" });
    const part = result.content[0]?.part;
    assert.equal(part?.case, "image");
    assert.deepEqual(part?.case === "image" ? [part.value.mediaType, ...part.value.data] : [], [
      "image/png",
      137,
      80,
      78,
      71,
    ]);
  });

  test("that answers with something that is no result has failed", async () => {
    for (const as of ["nothing", "number", "bytes", "object"]) {
      const by = caller();
      const { result, text } = await open.execute(by, { tool: "mistypes", argumentsJson: JSON.stringify({ as }) });
      assert.deepEqual([result.isError, text], [true, 'The tool "mistypes" failed.'], as);
      assert.match(JSON.stringify(lines("agent.error", by)), /a tool returned/);
    }
  });

  test("shows progress while it lasts: the newest of what came at once, then one result", async () => {
    const frames = new PassThrough({ objectMode: true });
    seen = frames[Symbol.asyncIterator]();
    const told: unknown[] = [];
    for await (const { frame } of open.execution.executeTool({ tool: "reports", callId: "call_1" }, callAs(caller()))) {
      if (frame.case === "progress") told.push([frame.value.message, frame.value.fraction]);
      else told.push(frame.case);
      frames.write("received");
    }
    assert.deepEqual(told, [["started", 0], ["step 99999", 0.99999], ["odd", 0], "result"]);
  });

  test("knows the run, and nothing that the model says changes it", async () => {
    const by = caller();
    const ids = { runId: "run_1", sessionId: "ses_1", agentId: "agt_1", endUserId: "ada", callId: "call_1" };
    const args = { tenant: "ten_x", runId: "run_x", requestKey: "x" };
    const asked = { tool: "tells", argumentsJson: JSON.stringify(args), ...ids };
    const told = { args, tenant: by.tenantId, ...ids };
    assert.deepEqual((await open.execute(by, asked)).value, { ...told, requestKey: "run_1/call_1" });
    assert.deepEqual((await open.execute(by, { ...asked, requestId: "key" })).value, { ...told, requestKey: "key" });
    assert.deepEqual((await open.execute(by, { ...asked, runId: "" })).value, { ...told, runId: "", requestKey: "" });
  });

  test("leaves a row, an audit row, a log line and metrics, without what is personal or secret in its arguments", async () => {
    const by = caller();
    const ids = { runId: newId("run"), sessionId: newId("ses"), agentId: newId("agt"), callId: newId("call") };
    const args = { note: "mail to ada@example.com", password: "hunter2", nul: "\0" };
    await open.execute(by, { tool: "tells", argumentsJson: JSON.stringify(args), ...ids });
    const [row] = await recorded(by);
    const { execution_id, created_at, duration_ms, result_length, ...rest } = row ?? {};
    const masked = { note: "mail to [EMAIL]", password: "[redacted]", nul: "\ufffd" };
    assert.deepEqual(rest, {
      tenant_id: by.tenantId,
      run_id: ids.runId,
      session_id: ids.sessionId,
      agent_id: ids.agentId,
      call_id: ids.callId,
      tool: "tells",
      arguments: masked,
      is_error: false,
      outcome: "ok",
    });
    assert.match(String(execution_id), /^exe_/);
    assert.ok(created_at instanceof Date && Number(duration_ms) >= 0 && Number(result_length) > 50);
    const [trail] = await database.db.tenant(by.tenantId, (tx) =>
      tx.query<Record<string, unknown>>("SELECT * FROM tool.audit"),
    );
    assert.deepEqual(
      [trail?.["type"], trail?.["resource"], trail?.["session_id"], trail?.["subject"], trail?.["result_length"]],
      ["tool.called", "tells", ids.sessionId, by.subject, result_length],
    );
    // The arguments are in the call's row, which an erasure empties.
    const { runId: run_id, callId: call_id, agentId: agent_id } = ids;
    assert.deepEqual(trail?.["details"], { execution_id, run_id, call_id, agent_id, outcome: "ok" });
    const [line] = lines("agent.tool.call", by);
    assert.deepEqual(
      [line?.["tool"], line?.["call_id"], line?.["run_id"], line?.["session_id"], line?.["success"]],
      ["tells", ids.callId, ids.runId, ids.sessionId, true],
    );
    assert.equal(Object(line?.["args"]).note, masked.note);
    const text = await open.service.metrics.text();
    const counted = `agent_tool_calls_total{tenant_id="${by.tenantId}",tool_name="tells",status="success"} 1`;
    assert.ok(text.includes(counted), text);
    assert.match(text, /agent_tool_duration_seconds_count\{tool_name="tells"\} [1-9]/);
  });

  test("arguments that do not fit are recorded as far as they could be read, and counted as an error", async () => {
    const by = caller();
    await open.execute(by, { tool: "calculator", argumentsJson: '{"expression":["x"]}' });
    await open.execute(by, { tool: "calculator", argumentsJson: "{{" });
    const rows = await recorded(by);
    assert.deepEqual(
      rows.map((row) => [row["outcome"], row["is_error"], row["arguments"]]),
      [
        ["invalid_arguments", true, { expression: ["x"] }],
        ["invalid_arguments", true, null],
      ],
    );
    const counted = `agent_tool_calls_total{tenant_id="${by.tenantId}",tool_name="calculator",status="error"} 2`;
    assert.ok((await open.service.metrics.text()).includes(counted));
  });

  test("that cannot be recorded is not reported as done", async () => {
    await using broken = await toolDatabase();
    await using other = await openTools({ database: broken.db, tools });
    await broken.db.close();
    const lost = await refusal(other.execute(caller(), { tool: "calculator", argumentsJson: '{"expression":"1"}' }));
    assert.equal(lost.code, Code.Unavailable);
    await other.execution.describeTools({ names: ["calculator"] }, callAs(caller()));
  });

  test("is waited for when the service drains", async () => {
    await using other = await openTools({ database: database.db, tools });
    const by = caller();
    begun = Promise.withResolvers();
    const abort = new AbortController();
    const call = refusal(other.execute(by, { tool: "deaf" }, { signal: abort.signal }));
    await begun.promise;
    const inTime = other.service.running.drain?.(AbortSignal.timeout(50));
    await inTime;
    assert.equal((await recorded(by)).length, 0);
    abort.abort();
    await call;
    await other.service.running.drain?.(AbortSignal.timeout(5_000));
    assert.equal((await recorded(by)).length, 1);
  });
});
