import type { Readable } from "node:stream";
import { type Dispatcher, request as undiciRequest } from "undici";
import { ByteStream } from "./byte-stream.ts";

export interface ThinFetchOptions {
  /** Holds the connections. */
  dispatcher: Dispatcher;
  /** Largest body of a response whose status is not 2xx, in bytes; the rest is cut off. */
  maxErrorBodyBytes: number;
  /** Largest body of a 2xx response, in bytes; one that is larger breaks off with an error. Default: none. */
  maxBodyBytes?: number;
  /** Throws for an address that is not to be asked. */
  check?: (url: URL) => void;
  /** Added where the caller has not set them. */
  headers?: (() => Record<string, string>) | undefined;
}

/**
 * A thin `fetch` over `undici.request`: method, headers, a body of text or bytes, a signal. Web streams cost more than all
 * the rest of a request, so a body is a {@link ByteStream} that makes one only on demand. Redirects are answers. It logs
 * nothing; headers carry credentials. Rejects with the signal's reason when aborted, else with a `TypeError` whose `cause`
 * is undici's error.
 */
export function createThinFetch(options: ThinFetchOptions): typeof globalThis.fetch {
  const { maxErrorBodyBytes, maxBodyBytes = Number.POSITIVE_INFINITY } = options;
  const thinFetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    if (input instanceof Request) throw new TypeError("fetch takes an address here, not a Request");
    const url = input instanceof URL ? input : new URL(input);
    if (url.protocol !== "https:" && url.protocol !== "http:") throw new TypeError("only http and https addresses");
    const signal = init.signal ?? null;
    signal?.throwIfAborted();
    options.check?.(url);
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(options.headers?.() ?? {})) {
      if (!headers.has(name)) headers.set(name, value);
    }
    let answer: Awaited<ReturnType<typeof undiciRequest>>;
    try {
      answer = await undiciRequest(url, {
        dispatcher: options.dispatcher,
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
    return new StreamedResponse(
      url.href,
      status,
      statusText,
      responseHeaders,
      answer.body,
      maxBodyBytes,
    ) as unknown as Response;
  };

  return thinFetch as typeof globalThis.fetch;
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

  constructor(url: string, status: number, statusText: string, headers: Headers, body: Readable, maxBytes: number) {
    this.url = url;
    this.status = status;
    this.statusText = statusText;
    this.headers = headers;
    this.body = new ByteStream(body, maxBytes);
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
  throw new TypeError("fetch sends text or bytes here");
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
