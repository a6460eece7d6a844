import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ROOT_CONTEXT, trace } from "@opentelemetry/api";
import fc from "fast-check";
import { inContext } from "./trace.ts";
import { extract, inject } from "./trace-context.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";

const spanOf = (traceparent: string, more = {}) => trace.getSpanContext(extract({ traceparent, ...more }));

describe("W3C trace context", () => {
  test("goes through headers unchanged, in a Headers object and in a record", () => {
    const sent = { traceparent: `00-${TRACE}-${SPAN}-01`, tracestate: "vendor=x,other=y" };
    for (const source of [
      sent,
      new Headers(sent),
      { traceparent: [sent.traceparent], tracestate: [sent.tracestate] },
    ]) {
      const record: Record<string, string> = {};
      const headers = new Headers();
      inContext(extract(source), () => {
        inject(record);
        inject(headers);
      });
      assert.deepEqual(record, sent);
      assert.deepEqual(Object.fromEntries(headers), sent);
    }
  });

  test("writes nothing without an active trace", () => {
    const headers = new Headers();
    inContext(ROOT_CONTEXT, () => inject(headers));
    assert.deepEqual([...headers], []);
  });

  test("follows the specification on what a valid header is", () => {
    assert.equal(spanOf(`00-${TRACE}-${SPAN}-00`)?.traceFlags, 0);
    assert.equal(spanOf(`cc-${TRACE}-${SPAN}-01-what-the-future-brings`)?.traceId, TRACE);
    assert.equal(spanOf(`00-${TRACE}-${SPAN}-ff`)?.traceFlags, 3);
    for (const invalid of [
      "",
      `ff-${TRACE}-${SPAN}-01`,
      `00-${TRACE}-${SPAN}-01-more`,
      `00-${TRACE.toUpperCase()}-${SPAN}-01`,
      `00-${"0".repeat(32)}-${SPAN}-01`,
      `00-${TRACE}-${"0".repeat(16)}-01`,
      `00-${TRACE}-${SPAN}`,
      `00-${TRACE}-${SPAN}-01\r\nx: y`,
    ]) {
      assert.equal(spanOf(invalid), undefined, invalid);
    }
  });

  test("drops a state that is too long", () => {
    assert.equal(spanOf(`00-${TRACE}-${SPAN}-01`, { tracestate: `a=${"x".repeat(600)}` })?.traceState, undefined);
  });

  test("never fails on what the world sends", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string(), (traceparent, tracestate) => {
        inContext(extract({ traceparent, tracestate }), () => inject({}));
      }),
    );
  });
});
