import type { Attributes } from "@opentelemetry/api";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace";
import { maskJson, maskText } from "./mask.ts";

/** Longest text that leaves in a span, in UTF-16 units. */
export const MAX_SPAN_TEXT = 4_096;

/** What became of a batch; undefined when it was delivered. */
export type OnExported = (error: Error | undefined) => void;

/**
 * Masks everything textual in spans before `next` sends them: names, attributes, events (recorded exceptions among
 * them), links and status messages. Done for whole batches here rather than where attributes are set, so that nothing
 * is missed and requests do not pay for it.
 */
export function maskingExporter(next: SpanExporter, onExported: OnExported = () => {}): SpanExporter {
  return {
    export: (spans, done) =>
      next.export(spans.map(maskSpan), (result) => {
        onExported(result.code === 0 ? undefined : (result.error ?? new Error("spans were not delivered")));
        done(result);
      }),
    forceFlush: async () => await next.forceFlush?.(),
    shutdown: async () => await next.shutdown(),
  };
}

function maskSpan(span: ReadableSpan): ReadableSpan {
  const { status } = span;
  const masked: Partial<Record<keyof ReadableSpan, unknown>> = {
    name: maskText(span.name, MAX_SPAN_TEXT),
    attributes: maskAttributes(span.attributes),
    status: status.message === undefined ? status : { ...status, message: maskText(status.message, MAX_SPAN_TEXT) },
    events: span.events.map((event) => ({
      ...event,
      name: maskText(event.name, MAX_SPAN_TEXT),
      attributes: maskAttributes(event.attributes ?? {}),
    })),
    links: span.links.map((link) => ({ ...link, attributes: maskAttributes(link.attributes ?? {}) })),
  };
  // The span's other properties are getters over private state, which a copy would lose.
  return Object.create(span, Object.getOwnPropertyDescriptors(masked)) as ReadableSpan;
}

function maskAttributes(attributes: Attributes): Attributes {
  return maskJson(attributes, { text: MAX_SPAN_TEXT }) as Attributes;
}
