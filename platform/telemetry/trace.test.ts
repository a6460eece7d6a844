import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Span } from "@opentelemetry/api";
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { InMemorySpanExporter } from "@opentelemetry/sdk-trace";
import { MAX_SPAN_TEXT } from "./masking-exporter.ts";
import { contextOf, endSpan, inContext, isTracing, iterateIn, startSpan, withSpan } from "./trace.ts";
import { extract, inject } from "./trace-context.ts";
import type { Tracing } from "./tracing.ts";
import { startTracing } from "./tracing.ts";

const PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const parent = extract({ traceparent: PARENT });

const traceparent = (): string | undefined => {
  const headers: Record<string, string> = {};
  inject(headers);
  return headers["traceparent"];
};

describe("with tracing off", () => {
  test("an incoming trace goes on untouched, across awaits", async () => {
    assert.equal(isTracing(), false);
    await withSpan(
      "outer",
      { a: 1 },
      async (span) => {
        assert.equal(span.isRecording(), false);
        await sleep(1);
        await withSpan("inner", {}, async () => assert.equal(traceparent(), PARENT));
      },
      { parent },
    );
  });

  test("a trace of our own begins where none came in: unsampled, one id for everything inside", () => {
    withSpan("outer", {}, () => {
      const outer = traceparent();
      assert.match(outer ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
      withSpan("inner", {}, () => assert.equal(traceparent(), outer));
      withSpan("another", {}, () => assert.notEqual(traceparent(), outer), { parent: ROOT_CONTEXT });
    });
    assert.equal(traceparent(), undefined);
  });

  test("results and errors come through as they are", async () => {
    assert.equal(
      withSpan("a", {}, () => 7),
      7,
    );
    assert.equal(await withSpan("a", {}, async () => 7), 7);
    const error = new Error("x");
    assert.throws(
      () =>
        withSpan("a", {}, () => {
          throw error;
        }),
      error,
    );
    await assert.rejects(
      withSpan("a", {}, async () => {
        throw error;
      }),
      error,
    );
  });
});

describe("with tracing on", () => {
  let exporter: InMemorySpanExporter;
  let tracing: Tracing;
  beforeEach(() => {
    exporter = new InMemorySpanExporter();
    tracing = startTracing({ service: "agent", exporter });
  });
  afterEach(async () => {
    await tracing.shutdown();
  });
  const spans = async () => {
    assert.equal(await tracing.flush(), true);
    return exporter.getFinishedSpans();
  };

  test("spans nest under the incoming trace and carry their attributes", async () => {
    await withSpan(
      "agent.query",
      { user_input_length: 5, absent: undefined },
      async (span) => {
        await withSpan("tool.todo", { "tool.name": "todo" }, async () => {});
        span.setAttribute("response_length", 7);
      },
      { parent, kind: SpanKind.SERVER },
    );
    const [tool, query] = await spans();
    assert.deepEqual([tool?.name, query?.name], ["tool.todo", "agent.query"]);
    assert.deepEqual(query?.attributes, { user_input_length: 5, response_length: 7 });
    assert.equal(query?.kind, SpanKind.SERVER);
    assert.equal(query?.parentSpanContext?.spanId, "00f067aa0ba902b7");
    assert.equal(tool?.parentSpanContext?.spanId, query?.spanContext().spanId);
    assert.equal(query?.status.code, SpanStatusCode.OK);
    assert.equal(query?.resource.attributes["service.name"], "agent");
  });

  test("what is thrown is recorded, and thrown on", async () => {
    await assert.rejects(
      withSpan("a", {}, async () => {
        throw new RangeError("too far");
      }),
      RangeError,
    );
    await assert.rejects(withSpan("b", {}, () => Promise.reject("plain")));
    const [a, b] = await spans();
    assert.deepEqual(a?.status, { code: SpanStatusCode.ERROR, message: "too far" });
    assert.equal(a?.events[0]?.attributes?.["exception.type"], "RangeError");
    assert.equal(b?.status.message, "plain");
  });

  test("a span that outlives its function is active in every step of a stream", async () => {
    const span = startSpan("stream", {}, { parent });
    const seen: (Span | undefined)[] = [];
    let released = false;
    async function* source() {
      try {
        for (let i = 0; i < 3; i++) {
          await sleep(1);
          seen.push(trace.getActiveSpan());
          yield i;
        }
      } finally {
        released = trace.getActiveSpan() === span;
      }
    }
    for await (const i of iterateIn(contextOf(span, { parent }), source())) {
      assert.equal(trace.getActiveSpan(), undefined);
      if (i === 1) break;
    }
    endSpan(span);
    assert.deepEqual(seen, [span, span]);
    assert.equal(released, true);
    assert.equal((await spans())[0]?.name, "stream");
  });

  test("everything textual is masked before it leaves", async () => {
    await assert.rejects(
      withSpan(
        "mail a@b.com",
        { args: "13812345678", list: ["sk-abcdefghijklmnopqrst"], password: "hunter2", n: 1 },
        async (span) => {
          span.addEvent("asked", { by: "a@b.com" });
          throw new Error("Bearer abc123def456");
        },
      ),
    );
    const [span] = await spans();
    assert.equal(span?.name, "mail [EMAIL]");
    assert.deepEqual(span?.attributes, { args: "[PHONE]", list: ["[API_KEY]"], password: "[redacted]", n: 1 });
    assert.deepEqual(span?.events[0]?.attributes, { by: "[EMAIL]" });
    assert.equal(span?.status.message, "Bearer [TOKEN]");
    assert.equal(span?.events[1]?.attributes?.["exception.message"], "Bearer [TOKEN]");
    assert.equal(span?.ended, true);
    assert.ok(span && span.duration[0] >= 0);
  });

  test("a long value is masked before it is cut", async () => {
    const key = `am_live_01k9zabcdefghjkmnpqrstvwxy_${"Zq7".repeat(14)}x_9f8e7d`;
    for (let before = MAX_SPAN_TEXT - key.length; before <= MAX_SPAN_TEXT; before += 4) {
      withSpan("a", { text: `${" ".repeat(before)}${key}${" ".repeat(3_000)}` }, () => {});
    }
    for (const { attributes } of await spans()) {
      assert.ok(String(attributes["text"]).length <= MAX_SPAN_TEXT + 1);
      assert.ok(!String(attributes["text"]).includes("am_live"));
    }
  });

  test("it cannot be turned on twice", () => {
    assert.throws(() => startTracing({ service: "other", exporter }), /already on/);
  });

  test("inContext brings a context to code that lost it", () => {
    inContext(parent, () => assert.equal(traceparent(), PARENT));
  });
});

describe("samplers", () => {
  const unsampled = extract({ traceparent: PARENT.replace(/01$/, "00") });
  const cases = [
    { sampler: "always_on", root: true, afterUnsampled: true },
    { sampler: "always_off", root: false, afterUnsampled: false },
    { sampler: "parentbased_always_on", root: true, afterUnsampled: false },
    { sampler: "parentbased_always_off", root: false, afterUnsampled: false },
    { sampler: "parentbased_traceidratio", ratio: 0, root: false, afterUnsampled: false },
    { sampler: "traceidratio", ratio: 1, root: true, afterUnsampled: true },
  ] as const;
  for (const { root, afterUnsampled, ...options } of cases) {
    test(`${options.sampler} ${"ratio" in options ? options.ratio : ""} records what its name says`, async () => {
      const exporter = new InMemorySpanExporter();
      const tracing = startTracing({ service: "s", exporter, ...options });
      withSpan("root", {}, () => {}, { parent: ROOT_CONTEXT });
      withSpan("after", {}, () => {}, { parent: unsampled });
      await tracing.flush();
      const names = exporter.getFinishedSpans().map(({ name }) => name);
      await tracing.shutdown();
      assert.deepEqual(names, [...(root ? ["root"] : []), ...(afterUnsampled ? ["after"] : [])]);
    });
  }
});
