import type { DescService } from "@bufbuild/protobuf";
import {
  type Client,
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  createClient,
  createRouterTransport,
  type Transport,
} from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { onwardKey } from "./call.ts";
import { dependencyDown, reasonOf } from "./errors.ts";
import type { HopSigner } from "./hop-token.ts";

const PING_INTERVAL_MS = 30_000;
const IDLE_CONNECTION_MS = 5 * 60_000;
const READ_MAX_BYTES = 16 * 1024 * 1024;

/** How one service reaches another: a generated client over a carrier, with the caller's hop token on every call. */
export interface Links {
  /** A client of the service, wherever it runs. */
  to<S extends DescService>(service: S): Client<S>;
  /** The carrier itself, for code that works from descriptors, such as the gateway's pass-through. */
  transport(service: DescService): Transport;
  /** A client of one replica of the service, by its advertised address. */
  at<S extends DescService>(service: S, address: string): Client<S>;
  close(): Promise<void>;
}

export interface LinksOptions {
  /** Name of the calling module, for example "gateway". */
  caller: string;
  signer: HopSigner;
  /** Name of the module that serves a proto service, for example "agent" for agentmesh.agent.v1.ChatService. */
  moduleOf(service: DescService): string;
  /** Modules of this process by name; a call to one of them stays in memory. */
  local(module: string): Transport | undefined;
  /** Base URL of a module in other processes. */
  address(module: string): string | undefined;
  /** Advertised address of this process: a replica-to-replica call to it stays in memory. */
  ownAddress: string;
  /** Adds `traceparent` to the headers of a call. */
  injectTrace(header: Headers): void;
}

export function createLinks(options: LinksOptions): Links {
  const remotes = new Map<string, { transport: Transport; manager: Http2SessionManager }>();

  const remote = (baseUrl: string, module: string): Transport => {
    const key = `${module} ${baseUrl}`;
    let entry = remotes.get(key);
    if (entry === undefined) {
      const manager = new Http2SessionManager(baseUrl, {
        pingIntervalMs: PING_INTERVAL_MS,
        idleConnectionTimeoutMs: IDLE_CONNECTION_MS,
      });
      const transport = createGrpcTransport({
        baseUrl,
        sessionManager: answering(manager),
        acceptCompression: [],
        readMaxBytes: READ_MAX_BYTES,
      });
      entry = { transport: withSender(transport, options, module), manager };
      remotes.set(key, entry);
    }
    return entry.transport;
  };

  const transportOf = (module: string): Transport => {
    const local = options.local(module);
    if (local !== undefined) return withSender(local, options, module);
    const address = options.address(module);
    if (address === undefined) throw dependencyDown(module, new Error(`no address configured for ${module}`));
    return remote(address, module);
  };

  const resolved = new Map<string, Transport>();
  const lazily = (service: DescService): Transport => {
    const module = options.moduleOf(service);
    const current = () => {
      let transport = resolved.get(module);
      if (transport === undefined) {
        transport = transportOf(module);
        resolved.set(module, transport);
      }
      return transport;
    };
    return {
      unary: (...call) => current().unary(...call),
      stream: (...call) => current().stream(...call),
    };
  };

  return {
    to: (service) => createClient(service, lazily(service)),
    transport: lazily,
    at(service, address) {
      const module = options.moduleOf(service);
      const local = address === options.ownAddress ? options.local(module) : undefined;
      return createClient(service, local === undefined ? remote(address, module) : withSender(local, options, module));
    },
    async close() {
      for (const { manager } of remotes.values()) manager.abort();
      remotes.clear();
    },
  };
}

/** A transport in memory: the real router with its codec, pipeline, deadlines and errors; no socket. */
export function createLocalTransport(
  routes: (router: ConnectRouter) => void,
  pipeline: ConnectRouterOptions,
): Transport {
  return createRouterTransport(routes, { router: pipeline });
}

/** Gives every call of a carrier its hop token, request id, trace and the client's address. */
function withSender(inner: Transport, options: LinksOptions, callee: string): Transport {
  const prepare = async (
    header: Parameters<Transport["unary"]>[3],
    contextValues: Parameters<Transport["unary"]>[5],
  ) => {
    const call = contextValues?.get(onwardKey);
    if (call === undefined) throw new Error(`a call to ${callee} was made without onward(call)`);
    const headers = new Headers(header);
    headers.set("authorization", `Bearer ${await options.signer.sign(call.principal, callee)}`);
    headers.set("x-request-id", call.requestId);
    if (call.ip !== "") headers.set("agentmesh-client-ip", call.ip);
    if (call.userAgent !== "") headers.set("agentmesh-client-agent", encodeURIComponent(call.userAgent));
    options.injectTrace(headers);
    return headers;
  };
  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const headers = await prepare(header, contextValues);
      try {
        return await inner.unary(method, signal, timeoutMs, headers, input, contextValues);
      } catch (error) {
        throw lost(error, signal, callee);
      }
    },
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const headers = await prepare(header, contextValues);
      try {
        const response = await inner.stream(method, signal, timeoutMs, headers, input, contextValues);
        return { ...response, message: losing(response.message, (error) => lost(error, signal, callee)) };
      } catch (error) {
        throw lost(error, signal, callee);
      }
    },
  };
}

/**
 * The same connections, on which every call ends. When a connection goes away after GOAWAY, Node closes its streams
 * without an error; the transport would wait for ever for an answer that had not begun.
 */
function answering(
  manager: Http2SessionManager,
): Pick<Http2SessionManager, "authority" | "request" | "notifyResponseByteRead"> {
  return {
    authority: manager.authority,
    notifyResponseByteRead: (stream) => manager.notifyResponseByteRead(stream),
    async request(...call) {
      const stream = await manager.request(...call);
      let answered = false;
      stream.once("response", () => {
        answered = true;
      });
      stream.once("close", () => {
        if (!answered) stream.emit("error", new ConnectError("the connection closed", Code.Unavailable));
      });
      return stream;
    },
  };
}

/** What carriers say when the way to the callee breaks: refused, reset, closed, or an answer that is none. */
const LOST: ReadonlySet<Code> = new Set([Code.Canceled, Code.Aborted, Code.Unavailable, Code.Internal, Code.Unknown]);

/** An error that the callee did not write, and that the caller did not cause by leaving, is the way's: DEPENDENCY_DOWN. */
function lost(error: unknown, signal: AbortSignal | undefined, callee: string): unknown {
  if (!(error instanceof ConnectError) || reasonOf(error) !== undefined || signal?.aborted) return error;
  return LOST.has(error.code) ? dependencyDown(callee, error) : error;
}

/** The same messages with their failure mapped; flat, as one wrapper per message is what a stream can afford. */
function losing<T>(messages: AsyncIterable<T>, map: (error: unknown) => unknown): AsyncIterable<T> {
  const fail = (error: unknown) => {
    throw map(error);
  };
  return {
    [Symbol.asyncIterator]() {
      const inner = messages[Symbol.asyncIterator]();
      const close = inner.return?.bind(inner);
      return { next: () => inner.next().catch(fail), ...(close === undefined ? {} : { return: close }) };
    },
  };
}
