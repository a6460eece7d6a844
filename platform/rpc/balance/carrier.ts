import { constants, type Http2Session } from "node:http2";
import { isIP, type LookupFunction } from "node:net";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { Place } from "./targets.ts";

const PING_INTERVAL_MS = 30_000;
const IDLE_CONNECTION_MS = 5 * 60_000;
const READ_MAX_BYTES = 16 * 1024 * 1024;
/**
 * All calls of this process to one replica share a connection: what hundreds of streams have received and nobody has read
 * yet, a window each, must not count as an attack. Node would reset streams at 10 MB.
 */
const SESSION_MEMORY_MB = 1_000;

/** gRPC to one replica over a connection of its own. */
export interface Carrier {
  readonly transport: Transport;
  /** Ends the connection and every call on it. */
  close(): void;
}

/** Opens nothing until the first call. */
export function openCarrier({ baseUrl, ip }: Place): Carrier {
  const manager = new Http2SessionManager(
    baseUrl,
    { pingIntervalMs: PING_INTERVAL_MS, idleConnectionTimeoutMs: IDLE_CONNECTION_MS },
    // The name stays in the URL, for :authority and for the certificate; only the connection goes to the address.
    { maxSessionMemory: SESSION_MEMORY_MB, ...(ip === undefined ? {} : { lookup: pinned(ip) }) },
  );
  const transport = createGrpcTransport({
    baseUrl,
    sessionManager: answering(manager),
    acceptCompression: [],
    readMaxBytes: READ_MAX_BYTES,
  });
  return { transport, close: () => manager.abort() };
}

function pinned(ip: string): LookupFunction {
  const family = isIP(ip);
  return (_name, options, done) => (options.all ? done(null, [{ address: ip, family }]) : done(null, ip, family));
}

const unsent = new WeakSet<object>();

/**
 * Whether a carrier's error is known to precede the request: there was no connection, or the peer refused the stream
 * before it looked at it (RFC 9113 §8.7). Then even a call with side effects may be made again.
 */
export function neverSent(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) if (unsent.has(cause)) return true;
  return false;
}

const watched = new WeakSet<Http2Session>();

/**
 * Gives a session a listener for its error that stays. The session manager takes its own away when it opens the next
 * connection, which may be between the end of this one and its error; an error that nobody hears ends the process.
 */
function watch(session: Http2Session | undefined): void {
  if (session === undefined || watched.has(session)) return;
  watched.add(session);
  session.on("error", () => {});
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
      const stream = await manager.request(...call).catch((error: Error) => {
        unsent.add(error);
        throw error;
      });
      watch(stream.session);
      let answered = false;
      stream.once("response", () => {
        answered = true;
      });
      stream.once("error", (error) => {
        if (stream.rstCode === constants.NGHTTP2_REFUSED_STREAM) unsent.add(error);
      });
      stream.once("close", () => {
        if (!answered) stream.emit("error", new ConnectError("the connection closed", Code.Unavailable));
      });
      return stream;
    },
  };
}
