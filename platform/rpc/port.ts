import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import {
  createServer as createHttp2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { Offenders } from "./offenders.ts";
import { guardSession } from "./session-guard.ts";

/** A request listener that serves HTTP/1.1 and HTTP/2 alike. */
export type NodeListener = (
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
) => void;

/** Limits of one port. Sources: RFC 9113 §6.5.2 and §10.5; Envoy's edge best practices; CVE-2023-44487, CVE-2025-8671. */
export const PORT_LIMITS = {
  /** A connection that sends nothing is closed after this. */
  sniffTimeoutMs: 10_000,
  /** Time for all headers of an HTTP/1.1 request. */
  headersTimeoutMs: 15_000,
  /** Time for a whole HTTP/1.1 request; responses may take longer. */
  requestTimeoutMs: 60_000,
  keepAliveTimeoutMs: 65_000,
  /** An HTTP/2 session without a stream is closed after this. */
  sessionIdleMs: 5 * 60_000,
  maxConcurrentStreams: 100,
  maxSessionMemoryMb: 10,
  /**
   * All headers of a request, and their number. Listeners refuse earlier, with words of their own; beyond this nobody
   * sees the request. A higher limit would promise what cannot be kept: nghttp2 decodes no field above 64 KiB, and who
   * does not decode has to end the connection with COMPRESSION_ERROR (RFC 9113 §4.3).
   */
  maxHeaderBytes: 64 * 1024,
  maxHeaderPairs: 256,
  maxConnections: 10_000,
  /** Connections of one address. High, since a proxy is one address for all of its clients. */
  maxConnectionsPerAddress: 2_000,
  /** After this an HTTP/2 session takes no new streams (GOAWAY), so that clients find new servers. ± 10 %. */
  maxSessionAgeMs: 30 * 60_000,
  /** How long streams may go on after that; longer than the gateway lets one be open, so that each ends with a reason. */
  sessionGraceMs: 65 * 60_000,
  /** Time between the server's own pings: who is gone without a word is found out. */
  pingIntervalMs: 60_000,
  /** Time for the answer to such a ping. */
  pingTimeoutMs: 20_000,
  /** Streams that a peer may have reset at once, and per second; the same for streams that broke the protocol. */
  streamResetBurst: 200,
  streamResetRate: 20,
  /** Pings that a peer may send at once, and per second. */
  pingBurst: 500,
  pingRate: 50,
  /** SETTINGS frames that a peer may send at once, and per second. */
  settingsBurst: 50,
  settingsRate: 5,
  /**
   * Connections of one address (an IPv6 network) that may be cut for abuse before its next ones are refused, and how many
   * of them are forgiven per minute. Behind a proxy that passes frames on unread, its clients share this.
   */
  offenceBurst: 3,
  offencesForgivenPerMinute: 6,
} as const;

export type PortLimits = { readonly [Name in keyof typeof PORT_LIMITS]: number };

export interface PortOptions {
  host: string;
  /** 0 takes a free port. */
  port: number;
  listener: NodeListener;
  limits?: Partial<PortLimits>;
}

export interface Port {
  readonly host: string;
  readonly port: number;
  /** Open connections. */
  readonly connections: number;
  /** Stops accepting, lets requests in flight end for `graceMs`, then closes every socket. */
  close(graceMs: number): Promise<void>;
}

/** The first bytes of an HTTP/2 connection (RFC 9113 §3.4) that no HTTP/1.1 request begins with. */
const PREFACE = "PRI";

const CLOSING_SWEEP_MS = 50;

/**
 * One TCP port for HTTP/1.1 and cleartext HTTP/2 with prior knowledge (gRPC, gRPC-Web, Connect, REST): the first three
 * bytes of a connection decide. The HTTP/1.1 server is the real listener, so that its timeouts and its tracking of idle
 * connections work.
 */
export async function openPort(options: PortOptions): Promise<Port> {
  const limits = { ...PORT_LIMITS, ...options.limits };
  const listener: NodeListener = (request, response) => {
    if (hasAuthority(request)) return options.listener(request, response);
    response.statusCode = 400;
    response.setHeader("content-type", "text/plain");
    response.end("the Host header is missing or not valid\n");
  };
  const http1 = createServer(
    {
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      maxHeaderSize: limits.maxHeaderBytes,
      connectionsCheckingInterval: Math.min(1000, limits.headersTimeoutMs),
    },
    listener,
  );
  http1.maxHeadersCount = limits.maxHeaderPairs;
  http1.maxConnections = limits.maxConnections;
  const http2 = createHttp2Server(
    {
      maxSessionMemory: limits.maxSessionMemoryMb,
      maxHeaderListPairs: limits.maxHeaderPairs,
      maxSessionInvalidFrames: 100,
      streamResetBurst: limits.streamResetBurst,
      streamResetRate: limits.streamResetRate,
      settings: {
        maxConcurrentStreams: limits.maxConcurrentStreams,
        maxHeaderListSize: limits.maxHeaderBytes,
        enablePush: false,
      },
    },
    listener,
  );
  const sessions = new Set<ServerHttp2Session>();
  const offenders = new Offenders(limits);
  http2.on("session", (session) => {
    sessions.add(session);
    session.setTimeout(limits.sessionIdleMs, () => session.close());
    const address = session.socket.remoteAddress ?? "";
    guardSession(session, limits, () => offenders.offended(address));
    session.once("close", () => sessions.delete(session));
    session.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code?.startsWith("ERR_HTTP2_") === true) offenders.offended(address);
      session.destroy();
    });
  });
  http2.on("sessionError", () => {});

  const sockets = new Set<Socket>();
  const addresses = new Map<string, number>();
  const [toHttp1] = http1.listeners("connection") as [(socket: Socket) => void];
  http1.removeAllListeners("connection");
  http1.on("connection", (socket: Socket) => {
    sockets.add(socket);
    const address = socket.remoteAddress ?? "";
    const count = (addresses.get(address) ?? 0) + 1;
    addresses.set(address, count);
    socket.once("close", () => {
      sockets.delete(socket);
      const left = (addresses.get(address) ?? 1) - 1;
      if (left === 0) addresses.delete(address);
      else addresses.set(address, left);
    });
    if (count > limits.maxConnectionsPerAddress || offenders.refused(address)) return void socket.destroy();
    socket.on("error", () => socket.destroy());
    socket.setTimeout(limits.sniffTimeoutMs, () => socket.destroy());
    let head = "";
    const sniff = () => {
      const chunk: Buffer | null = socket.read();
      if (chunk === null) return void socket.destroy();
      head += chunk.toString("latin1");
      // TCP may deliver the preface in pieces; "P" alone may also become POST.
      if (head.length < PREFACE.length && PREFACE.startsWith(head)) return void socket.once("readable", sniff);
      socket.setTimeout(0);
      socket.removeAllListeners("timeout");
      socket.unshift(Buffer.from(head, "latin1"));
      if (head.startsWith(PREFACE)) {
        // HTTP/1.1 lets a client end its half and still reads answers; HTTP/2 has no half-open connections (RFC 9113 §5.4).
        socket.allowHalfOpen = false;
        http2.emit("connection", socket);
      } else toHttp1.call(http1, socket);
    };
    socket.once("readable", sniff);
  });

  await new Promise<void>((resolve, reject) => {
    http1.once("error", reject);
    http1.listen({ host: options.host, port: options.port, backlog: 1024 }, () => {
      http1.off("error", reject);
      resolve();
    });
  });
  const address = http1.address() as AddressInfo;
  return {
    host: options.host,
    port: address.port,
    get connections() {
      return sockets.size;
    },
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => http1.close(() => resolve()));
      // RFC 9113 §6.8: GOAWAY lets streams in flight end and tells the peer to open no more.
      for (const session of sessions) session.close();
      http1.closeIdleConnections();
      // A kept-alive connection becomes idle again when its request in flight has been answered.
      const sweep = setInterval(() => http1.closeIdleConnections(), CLOSING_SWEEP_MS);
      const timer = setTimeout(() => {
        for (const session of sessions) session.destroy();
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      clearTimeout(timer);
      clearInterval(sweep);
      for (const socket of sockets) socket.destroy();
    },
  };
}

/**
 * RFC 9112 §3.2 wants 400 for a Host that is missing or no host. It is checked here because libraries make a URL of it,
 * and what a request listener throws ends the process.
 */
function hasAuthority(request: IncomingMessage | Http2ServerRequest): boolean {
  const authority = "authority" in request ? request.authority : request.headers.host;
  return authority !== undefined && URL.canParse(`http://${authority}`);
}
