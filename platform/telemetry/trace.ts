import { randomBytes } from "node:crypto";
import type { Attributes, Context, Span, SpanKind, Tracer } from "@opentelemetry/api";
import { context, SpanStatusCode, TraceFlags, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";

// Context follows the asynchronous flow from the moment this module is loaded, also when nothing is exported: trace
// ids in the log and in outgoing headers depend on it. Process-wide, and setting it again is a no-op.
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());

let tracer: Tracer | undefined;

/** Hands the spans of this process to `next`, or to nobody. Only tracing.ts calls it. */
export function useTracer(next: Tracer | undefined): void {
  tracer = next;
}

/** Whether spans are recorded. */
export function isTracing(): boolean {
  return tracer !== undefined;
}

export interface SpanOptions {
  /** Default: the active context. A server gives what `extract` returned. */
  readonly parent?: Context;
  /** Default INTERNAL. */
  readonly kind?: SpanKind;
}

/** Values for a span; undefined ones are left out. All are masked before they leave the process. */
export type SpanAttributes = { readonly [name: string]: Attributes[string] };

/**
 * Runs `fn` inside a new span, which ends when `fn` returns or its promise settles: OK, or ERROR with the exception
 * recorded, which is thrown on. With tracing off nothing is recorded, and `fn` still runs inside the incoming trace or,
 * without one, a new unsampled one, so that the log and the services called agree on a trace id.
 *
 * Span names that others rely on: `agent.query`, `tool.<name>`. For a span that outlives one function, as a stream's,
 * use {@link startSpan} with {@link inContext} and {@link iterateIn}.
 */
export function withSpan<T>(
  name: string,
  attributes: SpanAttributes,
  fn: (span: Span) => T,
  options: SpanOptions = {},
): T {
  const span = startSpan(name, attributes, options);
  return context.with(contextOf(span, options), () => {
    try {
      const result = fn(span);
      if (!isPromise(result)) {
        endSpan(span);
        return result;
      }
      return result.then(
        (value) => {
          endSpan(span);
          return value;
        },
        (error: unknown) => {
          endSpan(span, error);
          throw error;
        },
      ) as T;
    } catch (error) {
      endSpan(span, error);
      throw error;
    }
  });
}

/** A span that its caller ends, with {@link endSpan}. It is active only inside {@link inContext} of its context. */
export function startSpan(name: string, attributes: SpanAttributes = {}, options: SpanOptions = {}): Span {
  const parent = options.parent ?? context.active();
  if (tracer !== undefined) {
    const { kind } = options;
    return tracer.startSpan(name, { attributes, ...(kind === undefined ? {} : { kind }) }, parent);
  }
  // Off: the parent itself is passed on, with its sampling decision, because a span of ours would be missing from the
  // tree that others record.
  const incoming = trace.getSpanContext(parent);
  if (incoming !== undefined && trace.isSpanContextValid(incoming)) return trace.wrapSpanContext(incoming);
  const ids = randomBytes(24).toString("hex");
  return trace.wrapSpanContext({
    traceId: ids.slice(0, 32),
    spanId: ids.slice(32),
    traceFlags: TraceFlags.NONE,
  });
}

/** Ends a span as OK, or as ERROR with the exception recorded when one is given. */
export function endSpan(span: Span, ...failure: [] | [error: unknown]): void {
  if (failure.length === 0) {
    span.setStatus({ code: SpanStatusCode.OK });
  } else {
    const [error] = failure;
    const exception = error instanceof Error ? error : new Error(typeof error === "string" ? error : typeof error);
    span.setStatus({ code: SpanStatusCode.ERROR, message: exception.message });
    span.recordException(exception);
  }
  span.end();
}

/** The context in which `span` is the active one. */
export function contextOf(span: Span, options: Pick<SpanOptions, "parent"> = {}): Context {
  return trace.setSpan(options.parent ?? context.active(), span);
}

/** Runs `fn`, and what it awaits, in `where`. */
export function inContext<T>(where: Context, fn: () => T): T {
  return context.with(where, fn);
}

/**
 * The same iterable, each step of which runs in `where`: the body of an async generator otherwise runs in the context
 * of whoever asks for the next item. Ending early reaches the source.
 */
export function iterateIn<T>(where: Context, source: AsyncIterable<T>): AsyncIterableIterator<T> {
  const steps = context.with(where, () => source[Symbol.asyncIterator]());
  const finished: IteratorResult<T> = { done: true, value: undefined };
  return {
    next: () => context.with(where, () => steps.next()),
    return: (value) => context.with(where, async () => (await steps.return?.(value)) ?? finished),
    throw: (error: unknown) =>
      context.with(where, async () => {
        if (steps.throw === undefined) throw error;
        return await steps.throw(error);
      }),
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

function isPromise<T>(value: T): value is T & PromiseLike<Awaited<T>> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
