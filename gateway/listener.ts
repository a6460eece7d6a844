import { Code, ConnectError } from "@connectrpc/connect";
import type { NodeListener } from "#platform/rpc/port.ts";
import { draining } from "./edge/admission.ts";
import type { Cors } from "./edge/cors.ts";
import { lingerAfter } from "./edge/linger.ts";
import type { PeerResolver } from "./edge/peer.ts";
import { cutStalled } from "./edge/stalled.ts";
import { cut, type Exchange, exchangeOf, type NodeRequest } from "./exchange.ts";
import type { Face } from "./faces/face.ts";
import type { GatewayLimits } from "./limits.ts";
import { failureOf } from "./rest/error-body.ts";
import { headersTooLarge, methodNotAllowed, targetTooLong } from "./rest/errors.ts";
import type { MessageWriter } from "./rest/json/write-message.ts";
import { COMMON_HEADERS, respondFailure, respondJson } from "./rest/respond.ts";
import type { RestDoor } from "./rest/rest-door.ts";
import type { RpcDoor } from "./rpc-door.ts";

export interface ListenerOptions {
  readonly peers: PeerResolver;
  readonly cors: Cors;
  readonly rpc: RpcDoor;
  readonly rest: RestDoor;
  /** By path; these answer before anything else and are not cut by a drain. */
  readonly faces: Readonly<Record<string, Face>>;
  /** Paths of faces that scripts of other origins may not read. */
  readonly sameOrigin: ReadonlySet<string>;
  readonly writer: MessageWriter;
  readonly limits: GatewayLimits;
  readonly requestId: (header: Headers) => string;
}

/** The gateway's end of a port. */
export interface GatewayListener {
  readonly listener: NodeListener;
  /** Requests that were begun and are not answered to the end; those of the gRPC standard services are not counted. */
  readonly inFlight: number;
  /** From now on connections are closed after their answer. Resolves when nothing is in flight any more. */
  drain(): Promise<void>;
  /** Ends what is in flight with STREAM_DRAINING. */
  abort(): void;
}

const STALL_FACTOR = 1.25;

const STANDARD_SERVICES = "/grpc.";

/** Takes every request of a port to the face, RPC or REST route that its path names. */
export function createGatewayListener(options: ListenerOptions): GatewayListener {
  const live = new Set<Life>();
  const { promise: idle, resolve: onIdle } = Promise.withResolvers<void>();
  let isDraining = false;

  const leave = (life: Life) => {
    live.delete(life);
    if (isDraining && live.size === 0) onIdle();
  };

  const listener: NodeListener = (request, nodeResponse) => {
    const address = options.peers.clientAddress(request.socket.remoteAddress, forwardedFor(request));
    const exchange = exchangeOf(request, nodeResponse, address);
    const { response } = exchange;
    const life = new Life();
    // A health watch is open for as long as its watcher lives: nothing to wait for.
    if (!exchange.path.startsWith(STANDARD_SERVICES)) live.add(life);
    response.once("close", () => {
      leave(life);
      life.end(() => new ConnectError("the client closed the connection", Code.Canceled));
    });
    // Without a listener an error here would end the process; what it means is learned from "close".
    response.on("error", () => {});
    lingerAfter(request, response, options.limits);
    // Later than an event stream's own limit, which can still say why.
    cutStalled(exchange, STALL_FACTOR * options.limits.stallMs);
    if (isDraining && request.httpVersionMajor === 1) response.setHeader("connection", "close");
    dispatch(exchange, life, options).catch(() => cut(exchange));
  };

  return {
    listener,
    get inFlight() {
      return live.size;
    },
    drain() {
      isDraining = true;
      if (live.size === 0) onIdle();
      return idle;
    },
    abort() {
      for (const life of live) life.end(draining);
    },
  };
}

/** Ends what a request has begun. Its signal is made for who asks for it: the RPC door has one of the library's. */
class Life {
  #controller: AbortController | undefined;
  #ended: (() => Error) | undefined;

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#ended !== undefined) this.#controller.abort(this.#ended());
    return this.#controller.signal;
  }

  end(why: () => Error): void {
    this.#ended ??= why;
    if (this.#controller !== undefined && !this.#controller.signal.aborted) this.#controller.abort(why());
  }
}

async function dispatch(exchange: Exchange, life: Life, options: ListenerOptions): Promise<void> {
  const { path } = exchange;
  if (!options.sameOrigin.has(path) && options.cors.apply(exchange)) return;
  const { maxUrlBytes, maxHeaderBytes, maxHeaders } = options.limits;
  if ((exchange.request.url?.length ?? 0) > maxUrlBytes) return fail(exchange, targetTooLong(maxUrlBytes), options);
  if (!headersFit(exchange.request.rawHeaders, maxHeaderBytes, maxHeaders)) {
    return fail(exchange, headersTooLarge(maxHeaderBytes, maxHeaders), options);
  }
  if (options.rpc.serves(path)) return options.rpc.serve(exchange);
  const face = Object.hasOwn(options.faces, path) ? options.faces[path] : undefined;
  return face === undefined ? options.rest.serve(exchange, life.signal) : showFace(exchange, face, options);
}

async function showFace(exchange: Exchange, face: Face, options: ListenerOptions): Promise<void> {
  if (exchange.httpMethod !== "GET" && exchange.httpMethod !== "HEAD") {
    return fail(exchange, methodNotAllowed(["GET", "HEAD"]), options);
  }
  try {
    const answer = await face(exchange);
    if ("json" in answer) return respondJson(exchange, answer.status, answer.json);
    const [body, headers] =
      "body" in answer ? [answer.body, answer.headers] : [answer.text, { "content-type": answer.contentType }];
    exchange.response.writeHead(answer.status, { ...COMMON_HEADERS, ...headers });
    exchange.response.end(exchange.httpMethod === "HEAD" ? "" : body);
  } catch (error) {
    fail(exchange, error, options);
  }
}

function fail(exchange: Exchange, error: unknown, { requestId, writer }: ListenerOptions): void {
  const id = requestId(exchange.header);
  respondFailure(exchange, failureOf(error, id, writer), id);
}

/** HTTP/2 has the target among the headers; that has a limit of its own. */
function headersFit(raw: readonly string[], maxBytes: number, maxHeaders: number): boolean {
  let [bytes, count] = [0, 0];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (raw[i]?.startsWith(":") === true) continue;
    bytes += (raw[i]?.length ?? 0) + (raw[i + 1]?.length ?? 0);
    count += 1;
  }
  return bytes <= maxBytes && count <= maxHeaders;
}

function forwardedFor({ headers }: NodeRequest): string | undefined {
  const value = headers["x-forwarded-for"];
  return Array.isArray(value) ? value.join(",") : value;
}
