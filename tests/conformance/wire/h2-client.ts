import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from "node:http2";

/** A request below all libraries: a method, a path, headers and bytes. */
export interface WireRequest {
  readonly verb: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | undefined;
}

export interface WireAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly trailers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** How it ended: by itself, because nothing came for the time that the caller waits, or broken off. */
  readonly end: "whole" | "left" | "broken";
}

/** Node's client refuses the answers of a session on which more than this waits to be sent. */
const MEMORY_MB = 1_000;

const NOTHING: WireAnswer = { status: 0, headers: {}, trailers: {}, body: Buffer.alloc(0), end: "broken" };

/** Connections by cleartext HTTP/2 to one place, with a bounded number of calls at a time on each. */
export class H2Client implements AsyncDisposable {
  readonly #baseUrl: string;
  readonly #sessions: (ClientHttp2Session | undefined)[];
  #next = 0;
  #connected = 0;

  constructor(baseUrl: string, connections = 2) {
    this.#baseUrl = baseUrl;
    this.#sessions = Array.from({ length: connections }, () => undefined);
  }

  /** Connections that were begun so far: more than there are at a time when one of them ended. */
  get connected(): number {
    return this.#connected;
  }

  /** Never rejects: an answer that does not come is `broken`. Leaves after `quietMs` without a byte. */
  send(request: WireRequest, quietMs = 10_000): Promise<WireAnswer> {
    const session = this.#session(this.#next++ % this.#sessions.length);
    return new Promise<WireAnswer>((resolve) => {
      let headers: IncomingHttpHeaders & { ":status"?: number | undefined } = {};
      let trailers: IncomingHttpHeaders = {};
      const chunks: Buffer[] = [];
      let end: WireAnswer["end"] = "broken";
      const stream = session.request(
        { ":method": request.verb, ":path": request.path, ...request.headers },
        { endStream: request.body === undefined },
      );
      const timer = setTimeout(() => {
        end = "left";
        stream.close(8); // CANCEL
      }, quietMs);
      stream.on("response", (received) => {
        headers = received;
      });
      stream.on("trailers", (received) => {
        trailers = received;
      });
      stream.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        timer.refresh();
      });
      stream.on("end", () => {
        if (end === "broken") end = "whole";
      });
      stream.on("error", () => {});
      stream.on("close", () => {
        clearTimeout(timer);
        resolve({
          status: Number(headers[":status"] ?? 0),
          headers: plain(headers),
          trailers: plain(trailers),
          body: Buffer.concat(chunks),
          end: headers[":status"] === undefined && end === "whole" ? "broken" : end,
        });
      });
      if (request.body !== undefined) stream.end(request.body);
    }).catch(() => NOTHING);
  }

  #session(index: number): ClientHttp2Session {
    const known = this.#sessions[index];
    if (known !== undefined && !known.closed && !known.destroyed) return known;
    const session = connect(this.#baseUrl, { maxSessionMemory: MEMORY_MB });
    this.#connected += 1;
    session.on("error", () => {});
    this.#sessions[index] = session;
    return session;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) session?.destroy();
  }
}

function plain(headers: IncomingHttpHeaders): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers)
      .filter(([name]) => !name.startsWith(":"))
      .map(([name, value]) => [name, String(value)]),
  );
}
