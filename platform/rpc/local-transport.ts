import type { DescMethod, Message } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  createMethodImplSpec,
  createServiceImplSpec,
  type HandlerContext,
  type Interceptor,
  type MethodImplSpec,
  type Transport,
} from "@connectrpc/connect";
import { LocalCall } from "./local-call.ts";
import { answered, encoded, LocalMessages, received, requestsOf } from "./local-messages.ts";

type AnyFn = Parameters<Interceptor>[0];
type AnyRequest = Parameters<AnyFn>[0];
type AnyResponse = Awaited<ReturnType<AnyFn>>;

/**
 * A transport to handlers of this process: the pipeline that they have behind a port (request gate, interceptors,
 * deadline, limits, errors), and no frames. Nothing that the two ends may change is shared: requests pass the codec, answers
 * are copied, an error arrives as one that was read from a socket.
 */
export function createLocalTransport(
  routes: (router: ConnectRouter) => void,
  pipeline: ConnectRouterOptions,
): Transport {
  const specs = specsOf(routes);
  const live = new Set<LocalCall>();
  pipeline.shutdownSignal?.addEventListener("abort", () => {
    for (const call of live) call.shutDown(pipeline.shutdownSignal?.reason);
  });
  const open = (
    method: DescMethod,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: Parameters<Transport["unary"]>[3],
  ) => {
    const spec = specs.get(pathOf(method));
    if (spec === undefined) {
      throw new ConnectError(`no handler for ${pathOf(method)} in this process`, Code.Unimplemented);
    }
    const call = new LocalCall(spec.method, live, signal, timeoutMs, new Headers(header));
    if (pipeline.shutdownSignal?.aborted) call.shutDown(pipeline.shutdownSignal.reason);
    return { spec, call };
  };
  return {
    async unary(method, signal, timeoutMs, header, input) {
      const bytes = encoded(method.input, input);
      const { spec, call } = open(method, signal, timeoutMs, header);
      return (await new Promise<AnyResponse>((resolve, reject) => {
        if (call.left !== undefined) return reject(call.left);
        const leave = call.onLeft(reject);
        answerUnary(call.context, spec, pipeline, timeoutMs, bytes).then(
          (response) => {
            leave();
            call.end();
            resolve(response);
          },
          (error: unknown) => {
            leave();
            reject(call.fail(error));
          },
        );
      })) as never;
    },
    async stream(method, signal, timeoutMs, header, input) {
      const { spec, call } = open(method, signal, timeoutMs, header);
      if (call.left !== undefined) throw call.left;
      const { context } = call;
      const messages = new LocalMessages(call, method.output, pipeline.writeMaxBytes ?? Number.POSITIVE_INFINITY);
      await messages.begin(() => answerStream(call, spec, pipeline, timeoutMs, input));
      if (call.left !== undefined) throw call.left;
      return {
        stream: true,
        service: method.parent,
        method,
        // What a handler adds after its first message comes too late, as over a socket.
        header: new Headers(context.responseHeader),
        trailer: context.responseTrailer,
        message: { [Symbol.asyncIterator]: () => messages },
      } as never;
    },
  };
}

async function answerUnary(
  context: HandlerContext,
  spec: MethodImplSpec,
  pipeline: ConnectRouterOptions,
  timeoutMs: number | undefined,
  bytes: Uint8Array,
): Promise<AnyResponse> {
  await admit(context, pipeline, timeoutMs);
  const asked = received(spec.method.input, bytes, pipeline.readMaxBytes ?? Number.POSITIVE_INFINITY);
  const invoke: AnyFn = async (request) =>
    respond(context, spec, {
      stream: false,
      message: await callHandler(spec, request.message, contextOf(context, request)),
    });
  const response = await intercepted(invoke, pipeline)(request(context, spec, { stream: false, message: asked }));
  const limit = pipeline.writeMaxBytes ?? Number.POSITIVE_INFINITY;
  const message = answered(spec.method.output, response.message as Message, limit);
  return respond(context, spec, { stream: false, message });
}

async function answerStream(
  call: LocalCall,
  spec: MethodImplSpec,
  pipeline: ConnectRouterOptions,
  timeoutMs: number | undefined,
  input: AsyncIterable<object>,
): Promise<AsyncIterable<object>> {
  const { context } = call;
  await admit(context, pipeline, timeoutMs);
  const requests = requestsOf(call, spec.method.input, input, pipeline.readMaxBytes ?? Number.POSITIVE_INFINITY);
  const invoke: AnyFn = async (request) => {
    const { message } = request;
    const asked = spec.kind === "server_streaming" ? await single(message as AsyncIterable<Message>) : message;
    const answer = callHandler(spec, asked, contextOf(context, request));
    return respond(context, spec, { stream: true, message: spec.kind === "client_streaming" ? once(answer) : answer });
  };
  const response = await intercepted(invoke, pipeline)(request(context, spec, { stream: true, message: requests }));
  return response.message as AsyncIterable<Message>;
}

/** What a door does before a body is read. */
async function admit(context: HandlerContext, pipeline: ConnectRouterOptions, timeoutMs: number | undefined) {
  await pipeline.requestGate?.(context);
  const max = pipeline.maxTimeoutMs ?? Number.POSITIVE_INFINITY;
  if (timeoutMs !== undefined && timeoutMs > max) {
    throw new ConnectError(`timeout ${timeoutMs}ms must be <= ${max}`, Code.InvalidArgument);
  }
}

/** The one message that a server-streaming method takes. */
async function single(messages: AsyncIterable<Message>): Promise<Message> {
  const iterator = messages[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done === true) throw new ConnectError("protocol error: missing input message", Code.Unimplemented);
  const second = await iterator.next();
  if (second.done !== true) throw new ConnectError("protocol error: extra input message", Code.Unimplemented);
  return first.value;
}

async function* once(answer: unknown): AsyncGenerator<unknown> {
  yield await answer;
}

function callHandler(spec: MethodImplSpec, input: unknown, context: HandlerContext): unknown {
  return (spec.impl as (input: unknown, context: HandlerContext) => unknown)(input, context);
}

/** The handler's context as the interceptors leave it. */
function contextOf(context: HandlerContext, { header, signal, contextValues }: AnyRequest): HandlerContext {
  if (header === context.requestHeader && signal === context.signal && contextValues === context.values) return context;
  return { ...context, requestHeader: header, signal, values: contextValues };
}

function intercepted(invoke: AnyFn, { interceptors = [] }: ConnectRouterOptions): AnyFn {
  return interceptors.reduceRight((next, interceptor) => interceptor(next), invoke);
}

function request(context: HandlerContext, { method }: MethodImplSpec, content: object): AnyRequest {
  return {
    ...content,
    method,
    service: method.parent,
    requestMethod: context.requestMethod,
    url: context.url,
    signal: context.signal,
    header: context.requestHeader,
    contextValues: context.values,
  } as AnyRequest;
}

function respond(context: HandlerContext, { method }: MethodImplSpec, content: object): AnyResponse {
  const { responseHeader: header, responseTrailer: trailer } = context;
  return { ...content, method, service: method.parent, header, trailer } as AnyResponse;
}

/** What `routes` mounts, by path. */
function specsOf(routes: (router: ConnectRouter) => void): ReadonlyMap<string, MethodImplSpec> {
  const specs = new Map<string, MethodImplSpec>();
  const add = (spec: MethodImplSpec) => void specs.set(pathOf(spec.method), spec);
  const router: ConnectRouter = {
    handlers: [],
    service(service, implementation) {
      Object.values(createServiceImplSpec(service, implementation).methods).forEach(add);
      return router;
    },
    rpc(method, implementation) {
      add(createMethodImplSpec(method, implementation));
      return router;
    },
  };
  routes(router);
  return specs;
}

function pathOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}
