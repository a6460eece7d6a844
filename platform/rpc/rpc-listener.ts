import type { IncomingMessage, ServerResponse } from "node:http";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  createConnectRouter,
} from "@connectrpc/connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import type { NodeListener } from "./port.ts";

/**
 * Serves routes behind a pipeline over Connect, gRPC and gRPC-Web. Unlike connectNodeAdapter it leaves standard error
 * alone: a client that goes away in the middle of a stream is a line in the log at debug.
 */
export function createRpcListener(
  routes: (router: ConnectRouter) => void,
  pipeline: ConnectRouterOptions,
  log: { debug(fields: object, message: string): void },
): NodeListener {
  const router = createConnectRouter(pipeline);
  routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return async (request, response) => {
    const path = request.url?.split("?", 1)[0] ?? "";
    const handler = handlers.get(path);
    const answer = response as ServerResponse;
    if (handler === undefined) {
      answer.writeHead(404).end();
      return;
    }
    try {
      const universal = await handler(
        universalRequestFromNodeRequest(request as IncomingMessage, answer, undefined, undefined),
      );
      await universalResponseToNodeResponse(universal, answer);
    } catch (error) {
      log.debug({ code: Code[ConnectError.from(error).code], path, err: error }, "an RPC could not be answered");
      if (answer.headersSent) answer.destroy();
      else if (!answer.writableEnded) answer.writeHead(400).end();
    }
  };
}
