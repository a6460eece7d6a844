import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";

export type NodeRequest = IncomingMessage | Http2ServerRequest;

/** Of either version: what is used here is the same in both, except for {@link isClosed}. */
export type NodeResponse = ServerResponse;

/** One HTTP request and its response, of either version. */
export interface Exchange {
  readonly request: NodeRequest;
  readonly response: NodeResponse;
  readonly httpMethod: string;
  /** As it was sent, not decoded. */
  readonly path: string;
  /** Without the question mark. */
  readonly query: string;
  readonly header: Headers;
  /** Address of the client; see edge/peer.ts. */
  readonly clientAddress: string;
}

/** Reads the request line and headers. Pseudo headers are left out. */
export function exchangeOf(
  request: NodeRequest,
  response: ServerResponse | Http2ServerResponse,
  clientAddress: string,
): Exchange {
  const target = originForm(request.url ?? "");
  const question = target.indexOf("?");
  return {
    request,
    response: response as NodeResponse,
    httpMethod: request.method ?? "",
    path: question < 0 ? target : target.slice(0, question),
    query: question < 0 ? "" : target.slice(question + 1),
    header: webHeaders(request),
    clientAddress,
  };
}

/** RFC 9112 §3.2.2: a server takes the absolute form of a request target, too. */
function originForm(target: string): string {
  const authority = /^https?:\/\/[^/?#]*/i.exec(target)?.[0];
  return authority === undefined ? target : target.slice(authority.length) || "/";
}

function webHeaders({ headers }: NodeRequest): Headers {
  const web = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(":") || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) web.append(name, one);
  }
  return web;
}

/** True when nothing can be written any more. Node's HTTP/2 responses have no `destroyed`. */
export function isClosed({ request, response }: Pick<Exchange, "request" | "response">): boolean {
  return response.destroyed === true || response.writableEnded || ("stream" in request && request.stream.destroyed);
}

/** Waits until the response takes more, for at most `ms`; false when it did not, or was closed. */
export function drained(response: NodeResponse, ms: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(resolve, ms, false);
  const onDrain = () => resolve(true);
  const onClose = () => resolve(false);
  response.once("drain", onDrain);
  response.once("close", onClose);
  return promise.finally(() => {
    clearTimeout(timer);
    response.off("drain", onDrain);
    response.off("close", onClose);
  });
}

/** Breaks off an exchange: the connection of HTTP/1.1, the stream of HTTP/2. */
export function cut({ request }: Pick<Exchange, "request">): void {
  if ("stream" in request) request.stream.destroy();
  else request.socket.destroy();
}
