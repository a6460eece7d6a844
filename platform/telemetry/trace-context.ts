import type { Context, SpanContext } from "@opentelemetry/api";
import { context, createTraceState, INVALID_SPANID, INVALID_TRACEID, ROOT_CONTEXT, trace } from "@opentelemetry/api";

/** Headers to read from: fetch's, or a record as Node and NATS have it. Names in lower case. */
export type HeaderSource = Headers | Readonly<Record<string, string | readonly string[] | undefined>>;

/** Headers to write to. */
export type HeaderTarget = Headers | Record<string, string>;

// W3C Trace Context, section 3.2.2. A later version may append fields; version 00 may not, and ff is forbidden.
const TRACEPARENT = /^(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;

// The bits that version 00 and level 2 define: sampled, and random trace id. Others must not be forwarded.
const KNOWN_FLAGS = 0b11;

// Section 3.3.1.5: at least this much is to be propagated; more we drop, as it is.
const MAX_TRACESTATE = 512;

/**
 * Writes the active trace into outgoing headers as W3C `traceparent` (and `tracestate`); nothing without one.
 * Call it where the request is made, inside its span.
 */
export function inject(headers: HeaderTarget): void {
  const span = trace.getSpanContext(context.active());
  if (span === undefined || !trace.isSpanContextValid(span)) return;
  const flags = (span.traceFlags & KNOWN_FLAGS).toString(16).padStart(2, "0");
  write(headers, "traceparent", `00-${span.traceId}-${span.spanId}-${flags}`);
  const state = span.traceState?.serialize();
  if (state) write(headers, "tracestate", state);
}

/**
 * The context that incoming headers speak of: give it to `withSpan` as parent, or to `inContext`. Headers without a
 * valid `traceparent` give the empty context, so that a new trace begins; they are never an error.
 */
export function extract(headers: HeaderSource): Context {
  const span = parseTraceparent(read(headers, "traceparent"));
  if (span === undefined) return ROOT_CONTEXT;
  const state = read(headers, "tracestate");
  if (state !== undefined && state.length <= MAX_TRACESTATE) span.traceState = createTraceState(state);
  return trace.setSpanContext(ROOT_CONTEXT, span);
}

function parseTraceparent(header: string | undefined): SpanContext | undefined {
  const [, version, traceId, spanId, flags, more] = TRACEPARENT.exec(header?.trim() ?? "") ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (version === "00" && more !== undefined) return undefined;
  if (traceId === INVALID_TRACEID || spanId === INVALID_SPANID) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & KNOWN_FLAGS, isRemote: true };
}

function write(headers: HeaderTarget, name: string, value: string): void {
  if (headers instanceof Headers) headers.set(name, value);
  else headers[name] = value;
}

function read(headers: HeaderSource, name: string): string | undefined {
  const value = headers instanceof Headers ? headers.get(name) : headers[name];
  return (typeof value === "object" ? value?.[0] : value) ?? undefined;
}
