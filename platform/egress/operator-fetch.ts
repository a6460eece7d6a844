import type { Readable } from "node:stream";
import { Agent, request as undiciRequest } from "undici";
import { ByteStream } from "./byte-stream.ts";

/** What an operator door is made with. Every limit has a default and none can be switched off. */
export interface OperatorFetchOptions {
  /** Until a TCP and TLS connection stands, in milliseconds. Default 10 000. */
  connectTimeoutMs?: number;
  /** From the end of the request to the last header of the response, in milliseconds. Default 300 000. */
  headersTimeoutMs?: number;
  /** Longest silence inside a response body, in milliseconds. Default 120 000. */
  bodyIdleTimeoutMs?: number;
  /** Connections to one origin; requests above it wait for one. Default 512. */
  connectionsPerOrigin?: number;
  /** How long an idle connection is kept, in milliseconds. Default 30 000. */
  keepAliveMs?: number;
  /** Largest body of a response whose status is not 2xx, in bytes; the rest is cut off. Default 65 536. */
  maxErrorBodyBytes?: number;
  /** Headers added to every request where the caller has not set them, such as the trace context of the moment. */
  headers?: () => Record<string, string>;
}

/** A door to the internet, and the end of its connections. */
export interface OperatorFetch {
  /**
   * `fetch` as far as API clients need it: method, headers, a body of text or bytes, a signal. Redirects are answers, not
   * followed: a credential never goes to an address that a response named. Rejects with the signal's reason when aborted,
   * else with a `TypeError` whose `cause` is undici's error (its `code` tells a timeout from a broken connection).
   */
  fetch: typeof globalThis.fetch;
  /** Ends every connection at once. */
  close(): Promise<void>;
}

/**
 * The operator's door to the internet: for addresses that come from boot configuration (model providers, trace collectors,
 * Qdrant), never for one that a tenant, a model or a document named. It is a thin `fetch` over `undici.request`: web
 * streams cost more than all the rest of a request, so a body is a {@link ByteStream} that makes one only on demand.
 * It logs nothing; headers carry credentials.
 */
export function createOperatorFetch(options: OperatorFetchOptions = {}): OperatorFetch {
  const headersTimeout = options.headersTimeoutMs ?? 300_000;
  const bodyTimeout = options.bodyIdleTimeoutMs ?? 120_000;
  const maxErrorBodyBytes = options.maxErrorBodyBytes ?? 65_536;
  const agent = new Agent({
    connect: { timeout: options.connectTimeoutMs ?? 10_000 },
    connections: options.connectionsPerOrigin ?? 512,
    keepAliveTimeout: options.keepAliveMs ?? 30_000,
    headersTimeout,
    bodyTimeout,
    allowH2: false,
  });

  const operatorFetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    if (input instanceof Request) throw new TypeError("operator fetch takes an address, not a Request");
    const url = input instanceof URL ? input : new URL(input);
    if (url.protocol !== "https:" && url.protocol !== "http:") throw new TypeError("only http and https addresses");
    const signal = init.signal ?? null;
    signal?.throwIfAborted();
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(options.headers?.() ?? {})) {
      if (!headers.has(name)) headers.set(name, value);
    }
    let answer: Awaited<ReturnType<typeof undiciRequest>>;
    try {
      answer = await undiciRequest(url, {
        dispatcher: agent,
        method: (init.method ?? "GET").toUpperCase() as "GET",
        headers,
        body: requestBody(init.body),
        signal,
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw new TypeError("fetch failed", { cause: error });
    }
    const { statusCode: status, statusText } = answer;
    const responseHeaders = toHeaders(answer.headers);
    if (status < 200 || status > 299) {
      if (status > 599) throw new TypeError(`fetch failed: status ${status}`);
      const text = await readCapped(answer.body, maxErrorBodyBytes, signal);
      // A `Response` with a body cannot be made for 304.
      return new Response(status === 304 ? null : text, { status, statusText, headers: responseHeaders });
    }
    return new StreamedResponse(url.href, status, statusText, responseHeaders, answer.body) as unknown as Response;
  };

  return { fetch: operatorFetch as typeof globalThis.fetch, close: () => agent.destroy() };
}

/** A 2xx response: the members of a `Response` that API clients use. */
class StreamedResponse {
  readonly ok = true;
  readonly redirected = false;
  readonly type = "basic";
  readonly url: string;
  readonly status: number;
  readonly statusText: string;
  readonly headers: Headers;
  readonly body: ByteStream;

  constructor(url: string, status: number, statusText: string, headers: Headers, body: Readable) {
    this.url = url;
    this.status = status;
    this.statusText = statusText;
    this.headers = headers;
    this.body = new ByteStream(body);
  }

  get bodyUsed(): boolean {
    return this.body.used;
  }

  async bytes(): Promise<Uint8Array> {
    if (this.body.used) throw new TypeError("the body was already read");
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.body) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return new Uint8Array(await this.bytes()).buffer as ArrayBuffer;
  }

  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }

  async blob(): Promise<Blob> {
    return new Blob([await this.arrayBuffer()], { type: this.headers.get("content-type") ?? "" });
  }

  clone(): never {
    throw new TypeError("a streamed response cannot be cloned");
  }
}

function requestBody(body: unknown): string | Uint8Array | null {
  if (body === undefined || body === null) return null;
  if (typeof body === "string" || body instanceof Uint8Array) return body;
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  throw new TypeError("operator fetch sends text or bytes");
}

function toHeaders(raw: Record<string, string | string[] | undefined>): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(raw)) {
    if (Array.isArray(value)) for (const one of value) headers.append(name, one);
    else if (value !== undefined) headers.set(name, value);
  }
  return headers;
}

async function readCapped(
  body: Readable,
  maxBytes: number,
  signal: AbortSignal | null,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const stream = new ByteStream(body);
  try {
    for await (const chunk of stream) {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= maxBytes) break;
    }
  } catch {
    // The status is the answer; what arrived of its body is enough.
    signal?.throwIfAborted();
  }
  return new Uint8Array(Buffer.concat(chunks).subarray(0, maxBytes));
}
