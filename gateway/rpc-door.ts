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
import { cut, type Exchange, isClosed } from "./exchange.ts";

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
        const values = createContextValues()
          .set(clientAddressKey, exchange.clientAddress)
          .set(answerKey, answerOf(exchange));
        const request = universalRequestFromNodeRequest(exchange.request, exchange.response, undefined, values);
        await universalResponseToNodeResponse(await handler(request), exchange.response);
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

function limitBodyTime(exchange: Exchange, ms: number): void {
  const { request, response } = exchange;
  const timer = setTimeout(() => {
    if (!request.complete) cut(exchange);
  }, ms);
  const done = () => clearTimeout(timer);
  request.once("end", done);
  response.once("close", done);
}
