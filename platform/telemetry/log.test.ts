import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { agentLog } from "./agent-log.ts";
import type { Log, LogLevel } from "./log.ts";
import { createLog } from "./log.ts";
import type { LogFields } from "./log-fields.ts";
import { prettyLine } from "./pretty.ts";
import { withSpan } from "./trace.ts";

function capture(
  level: LogLevel = "info",
  pretty = false,
): { log: Log; lines: Record<string, unknown>[]; raw: string[] } {
  const raw: string[] = [];
  const lines: Record<string, unknown>[] = [];
  const destination = {
    write: (line: string) => {
      raw.push(line);
      if (!pretty) lines.push(JSON.parse(line));
    },
  };
  return { log: createLog({ level, service: "agent", destination, pretty }), lines, raw };
}

describe("a log", () => {
  test("writes one JSON object per line with time, level, service, message and fields", () => {
    const { log, lines, raw } = capture();
    log.info({ run_id: "run_1", duration_ms: 12 }, "run\nended");
    const [line] = lines;
    assert.match(String(line?.["time"]), /^\d{4}-\d\d-\d\dT.*Z$/);
    delete line?.["time"];
    assert.deepEqual(line, { level: "info", service: "agent", run_id: "run_1", duration_ms: 12, msg: "run\nended" });
    assert.equal(raw.join("").split("\n").length, 2);
  });

  test("leaves out fields that are not loggable and says which", () => {
    const { log, lines } = capture();
    const fields: object = { tenant_id: "ten_1", user_input: "what the customer said", msg: "forged", level: "fatal" };
    log.info(fields as LogFields, "m");
    assert.deepEqual(lines[0]?.["omitted"], ["user_input", "msg", "level"]);
    assert.equal(lines[0]?.["tenant_id"], "ten_1");
    assert.equal(lines[0]?.["msg"], "m");
    assert.ok(!JSON.stringify(lines).includes("customer"));
  });

  test("gives its children's fields to each of their lines, the line's own going first", () => {
    const { log, lines } = capture();
    const child = log.child({ tenant_id: "ten_1", session_id: "ses_1" }).child({ run_id: "run_1", request_id: "r" });
    child.warn({ run_id: "run_2" }, "m");
    const { tenant_id, session_id, run_id, request_id } = lines[0] ?? {};
    assert.deepEqual([tenant_id, session_id, run_id, request_id], ["ten_1", "ses_1", "run_2", "r"]);
  });

  test("writes from its level on, and a change of level reaches children that exist", () => {
    const { log, lines } = capture("warn");
    const child = log.child({});
    child.info("quiet");
    log.setLevel("debug");
    child.debug("heard");
    child.setLevel("silent");
    log.fatal("quiet");
    assert.deepEqual(
      lines.map(({ msg }) => msg),
      ["heard"],
    );
    assert.equal(log.level(), "silent");
  });

  test("takes an error in place of fields", () => {
    const { log, lines } = capture();
    log.error(new RangeError("too far"));
    assert.equal(lines[0]?.["msg"], "too far");
    assert.equal((lines[0]!["err"] as { type: string }).type, "RangeError");
  });

  test("carries the trace that is active", () => {
    const { log, lines } = capture();
    log.info("outside");
    withSpan("work", {}, (span) => {
      log.info("inside");
      assert.equal(lines[1]?.["trace_id"], span.spanContext().traceId);
      assert.equal(lines[1]?.["span_id"], span.spanContext().spanId);
    });
    assert.equal(lines[0]?.["trace_id"], undefined);
  });

  test("never throws, whatever it is given and wherever it writes", () => {
    const { log, lines } = capture();
    const hostile = new Proxy(
      {},
      {
        ownKeys: () => {
          throw new Error("no");
        },
      },
    );
    log.info(hostile, "m");
    log.info(undefined as unknown as string);
    log
      .child({
        context: {
          toJSON: () => {
            throw new Error("no");
          },
        },
      })
      .info({ details: 1n }, "n");
    assert.equal(lines.length, 3);
    const broken = createLog({
      level: "info",
      service: "s",
      destination: {
        write: () => {
          throw new Error("EPIPE");
        },
      },
    });
    broken.info("m");
  });
});

describe("the pretty form", () => {
  test("is one line for people, and below it the stacks of an error and its causes", () => {
    const { log, raw } = capture("info", true);
    const cause = Object.assign(new Error("inner"), { stack: "Error: inner\n    at b" });
    const error = Object.assign(new Error("outer", { cause }), { stack: "Error: outer\n    at a" });
    log.error({ run_id: "run_1", args: { a: [1] }, err: error }, "failed");
    const [first, ...rest] = raw.join("").split("\n");
    assert.match(first ?? "", /^\d\d:\d\d:\d\d\.\d{3} ERROR agent: failed run_id=run_1 args=\{ a: \[ 1 \] \}$/);
    assert.deepEqual(
      rest.map((line) => line.trim()),
      ["Error: outer", "at a", "caused by", "Error: inner", "at b", ""],
    );
  });

  test("lets no control character through, so that input forges no line", () => {
    const { log, raw } = capture("info", true);
    log.info({ path: "/x\u001b[2J" }, "a\nERROR agent: forged\u202e\u007f");
    assert.equal(
      raw
        .join("")
        .match(/[\p{Cc}\u202e]/gu)
        ?.join(""),
      "\n",
    );
    assert.match(raw.join(""), /a\\nERROR agent: forged\\u202e\\u007f/);
  });

  test("passes on what is no JSON object", () => {
    assert.equal(prettyLine("plain\n"), "plain\n");
    assert.equal(prettyLine("17"), "17");
  });
});

describe("agentLog", () => {
  test("writes the design document's events with its fields", () => {
    const { log, lines } = capture();
    const agent = agentLog(log.child({ tenant_id: "ten_1", session_id: "ses_1" }));
    agent.queryStart({ inputLength: 5 });
    agent.queryComplete({ responseLength: 7, iterations: 2, durationMs: 30 });
    agent.toolCall({ tool: "weather", args: { city: "上海", phone: "13812345678" }, durationMs: 4, success: true });
    agent.error(new TypeError("bad a@b.com"), { step: 2, token: "t" });
    agent.error(Object.create(null));
    const seen = lines.slice(0, 4).map(({ time, level, service, tenant_id, session_id, err, ...rest }) => {
      assert.deepEqual([service, tenant_id, session_id], ["agent", "ten_1", "ses_1"]);
      return rest;
    });
    assert.deepEqual(seen, [
      { event: "agent.query.start", input_length: 5, msg: "agent.query.start" },
      {
        event: "agent.query.complete",
        response_length: 7,
        iterations: 2,
        duration_ms: 30,
        msg: "agent.query.complete",
      },
      {
        event: "agent.tool.call",
        tool: "weather",
        args: { city: "上海", phone: "[PHONE]" },
        duration_ms: 4,
        success: true,
        msg: "agent.tool.call",
      },
      {
        event: "agent.error",
        error_type: "TypeError",
        error_message: "bad [EMAIL]",
        context: { step: 2, token: "[redacted]" },
        msg: "agent.error",
      },
    ]);
    assert.match((lines[3]!["err"] as { stack: string }).stack, /^TypeError: bad \[EMAIL\]\n/);
    assert.equal(lines[4]?.["error_type"], "object");
  });
});
