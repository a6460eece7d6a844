import { type ClientHttp2Session, connect, constants } from "node:http2";
import { type Caller, TurnFailed, type TurnOptions } from "./caller.ts";
import { Envelopes } from "./envelopes.ts";
import { CHAT_STREAM_PATH, chatEnvelope } from "./request.ts";

/** Connections; each holds so many streams, below the 100 that the port allows. */
const SESSIONS = 16;
const WINDOW_BYTES = 1024 * 1024;

/** Asks by gRPC over HTTP/2 without TLS. */
export function grpcCaller(url: string, key: string): Caller {
  const sessions: ClientHttp2Session[] = [];
  let turns = 0;

  /** Few turns at once go over one connection, as a client's channel would have them. */
  const session = (index: number): ClientHttp2Session => {
    const open = sessions[index];
    if (open !== undefined && !open.closed && !open.destroyed) return open;
    const made = connect(url, { settings: { initialWindowSize: WINDOW_BYTES } });
    made.on("error", () => made.destroy());
    sessions[index] = made;
    return made;
  };

  return {
    name: "grpc",
    async turn(message, options = {}) {
      const index = Math.floor(turns++ / PER_SESSION) % SESSIONS;
      try {
        return { firstMs: await call(session(index), key, message, options) };
      } finally {
        turns--;
      }
    },
    async [Symbol.asyncDispose]() {
      for (const one of sessions) one?.destroy();
    },
  };
}

const PER_SESSION = 64;

async function call(session: ClientHttp2Session, key: string, message: string, options: TurnOptions): Promise<number> {
  const began = performance.now();
  const stream = session.request({
    ":method": "POST",
    ":path": CHAT_STREAM_PATH,
    "content-type": "application/grpc+proto",
    te: "trailers",
    authorization: `Bearer ${key}`,
  });
  const leave = () => stream.close(constants.NGHTTP2_CANCEL);
  options.signal?.addEventListener("abort", leave, { once: true });
  const envelopes = new Envelopes();
  let firstMs = Number.NaN;
  let status: string | undefined;
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.on("data", (chunk: Buffer) => {
    options.onChunk?.(chunk);
    if (envelopes.feed(chunk) && Number.isNaN(firstMs)) firstMs = performance.now() - began;
  });
  stream.once("trailers", (trailers) => {
    status = String(trailers["grpc-status"]);
  });
  stream.on("error", () => {});
  stream.once("close", resolve);
  stream.end(chatEnvelope(message, options));
  await promise;
  options.signal?.removeEventListener("abort", leave);
  const problem = status === "0" ? envelopes.problem() : `a stream ended with status ${status}`;
  if (problem !== undefined) throw new TurnFailed(problem);
  return firstMs;
}
