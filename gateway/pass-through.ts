import type {
  DescMessage,
  DescMethod,
  DescMethodStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import type { CallOptions, ConnectRouter, HandlerContext, Transport } from "@connectrpc/connect";
import { arrivalKey, type Call, callOf, onward } from "#platform/rpc/call.ts";
import type { Links } from "#platform/rpc/links.ts";
import { defaultTimeoutMs } from "./deadlines.ts";
import { ANONYMOUS } from "./edge/admission.ts";
import type { GatewayLimits } from "./limits.ts";
import { publicMethods } from "./public-services.ts";

/** Response headers of services that callers see; everything else between services stays there. */
export const PASSED_HEADERS = ["location"] as const;

type In = MessageShape<DescMessage>;
type Out = MessageShape<DescMessage>;

/**
 * Mounts every public method and hands its calls on to the service that has it. No header of the caller is handed on:
 * principal, deadline, request id, address and trace travel as the link writes them.
 */
export function mountPassThrough(
  router: ConnectRouter,
  services: readonly DescService[],
  links: Pick<Links, "transport">,
  limits: GatewayLimits,
): void {
  for (const method of publicMethods(services)) {
    router.rpc(method, handlerOf(method, links.transport(method.parent), limits) as never);
  }
}

function handlerOf(method: DescMethod, transport: Transport, limits: GatewayLimits): unknown {
  const timeoutMs = defaultTimeoutMs(method, limits);
  switch (method.methodKind) {
    case "unary":
      return async (input: In, context: HandlerContext) => {
        const response = await callUnary(
          transport,
          method as DescMethodUnary,
          input,
          onward(callFrom(context), timeoutMs),
        );
        passHeaders(response.header, context.responseHeader);
        return response.message;
      };
    case "client_streaming":
      return async (input: AsyncIterable<In>, context: HandlerContext) => {
        const response = await callStream(
          transport,
          method as DescMethodStreaming,
          input,
          onward(callFrom(context), timeoutMs),
        );
        passHeaders(response.header, context.responseHeader);
        let last: Out | undefined;
        for await (const message of response.message) last = message;
        return last;
      };
    case "server_streaming":
      return (input: In, context: HandlerContext) =>
        relay(transport, method as DescMethodStreaming, one(input), context);
    case "bidi_streaming":
      return (input: AsyncIterable<In>, context: HandlerContext) =>
        relay(transport, method as DescMethodStreaming, input, context);
  }
}

/**
 * The messages of a stream as they come, one step per message: a generator here would cost one more promise per delta.
 * The call's signal ends the inner stream too, so that nothing has to be returned.
 */
function relay(
  transport: Transport,
  method: DescMethodStreaming,
  input: AsyncIterable<In>,
  context: HandlerContext,
): AsyncIterable<Out> {
  let inner: AsyncIterator<Out> | undefined;
  const begin = async () => {
    const response = await callStream(transport, method, input, onward(callFrom(context)));
    passHeaders(response.header, context.responseHeader);
    inner = response.message[Symbol.asyncIterator]();
    return inner.next();
  };
  const iterator: AsyncIterator<Out> = { next: () => (inner === undefined ? begin() : inner.next()) };
  return { [Symbol.asyncIterator]: () => iterator };
}

/** One call through a transport, with the options that a generated client would take. */
export function callUnary(transport: Transport, method: DescMethodUnary, input: In, options: CallOptions) {
  return transport.unary(
    method,
    options.signal,
    options.timeoutMs,
    options.headers,
    input as MessageInitShape<DescMessage>,
    options.contextValues,
  );
}

export function callStream(
  transport: Transport,
  method: DescMethodStreaming,
  input: AsyncIterable<In>,
  options: CallOptions,
) {
  return transport.stream(
    method,
    options.signal,
    options.timeoutMs,
    options.headers,
    input as AsyncIterable<MessageInitShape<DescMessage>>,
    options.contextValues,
  );
}

/** A stream of one request message. */
export async function* one<T>(message: T): AsyncGenerator<T> {
  yield message;
}

function callFrom(context: HandlerContext): Call {
  const arrival = context.values.get(arrivalKey);
  if (arrival !== undefined && arrival.principal === undefined) {
    const anonymous = { ...arrival, principal: ANONYMOUS };
    context.values.set(arrivalKey, anonymous);
  }
  return callOf(context);
}

export function passHeaders(from: Headers, to: Headers): void {
  for (const name of PASSED_HEADERS) {
    const value = from.get(name);
    if (value !== null) to.set(name, value);
  }
}
