import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  createConnectRouter,
  createContextValues,
} from "@connectrpc/connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import { answerKey, clientAddressKey } from "./edge/admission.ts";
import { answerOf } from "./edge/answer.ts";
import { cut, type Exchange, isClosed, type NodeRequest } from "./exchange.ts";

/** The Connect, gRPC and gRPC-Web face: one path per method. */
export interface RpcDoor {
  serves(path: string): boolean;
  /** Answers; never rejects. */
  serve(exchange: Exchange): Promise<void>;
}

/**
 * What connectNodeAdapter does, with three differences: the client's address reaches the pipeline, a body that does not
 * arrive in time is broken off (HTTP/2 has no request timeout), and a client that goes away in the middle of a stream is
 * no line on standard error.
 */
export function createRpcDoor(
  routes: (router: ConnectRouter) => void,
  pipeline: ConnectRouterOptions,
  options: { log: { debug(fields: object, message: string): void }; bodyTimeoutMs: number },
): RpcDoor {
  const router = createConnectRouter(pipeline);
  routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return {
    serves: (path) => handlers.has(path),
    async serve(exchange) {
      const handler = handlers.get(exchange.path);
      if (handler === undefined) return;
      const { methodKind } = handler.method;
      if (methodKind === "unary" || methodKind === "server_streaming") limitBodyTime(exchange, options.bodyTimeoutMs);
      try {
        const streams = methodKind === "server_streaming" || methodKind === "bidi_streaming";
        const ending = streams ? new AbortController() : undefined;
        const values = createContextValues()
          .set(clientAddressKey, exchange.clientAddress)
          .set(answerKey, answerOf(exchange, ending));
        const request = universalRequestFromNodeRequest(exchange.request, exchange.response, undefined, values);
        const signal = ending === undefined ? request.signal : following(request.signal, ending);
        const body = bodyOf(exchange.request) ?? request.body;
        await universalResponseToNodeResponse(await handler({ ...request, body, signal }), exchange.response);
      } catch (error) {
        const { code } = ConnectError.from(error);
        options.log.debug({ code: Code[code], path: exchange.path, err: error }, "an RPC could not be answered");
        if (exchange.response.headersSent || isClosed(exchange)) return cut(exchange);
        exchange.response.statusCode = 400;
        exchange.response.end();
      }
    },
  };
}

/** The controller's signal, which aborts with `signal`, too; AbortSignal.any would cost an open stream four sets. */
function following(signal: AbortSignal, controller: AbortController): AbortSignal {
  const follow = () => controller.abort(signal.reason);
  if (signal.aborted) follow();
  else signal.addEventListener("abort", follow, { once: true });
  return controller.signal;
}

/**
 * The library destroys a request that it reads no further. Of HTTP/1.1 nobody would then take the rest from the
 * connection, and the sender would be stuck behind an answer that it may already have read; see linger.ts.
 */
function bodyOf(request: NodeRequest): AsyncIterable<Uint8Array> | undefined {
  return "stream" in request ? undefined : request.iterator({ destroyOnReturn: false });
}

function limitBodyTime(exchange: Exchange, ms: number): void {
  const { request, response } = exchange;
  const timer = setTimeout(() => {
    if (!request.complete) cut(exchange);
  }, ms);
  const done = () => clearTimeout(timer);
  request.once("end", done);
  response.once("close", done);
}
