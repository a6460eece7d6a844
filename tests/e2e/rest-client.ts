import { createParser, type EventSourceMessage } from "eventsource-parser";

/** A JSON answer with what a test asks of it. */
export interface RestAnswer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: answers are looked into field by field
  body: any;
}

/** What stands in an AIP-193 error. */
export interface RestError {
  code: number;
  status: string;
  message: string;
  reason: string;
  fields: string[];
}

/** A caller of the REST face, as an integrator with curl is one. */
export class RestClient {
  readonly #baseUrl: string;
  readonly #key: string | undefined;

  constructor(baseUrl: string, key: string | undefined) {
    this.#baseUrl = baseUrl;
    this.#key = key;
  }

  /** The same place with another key, or without one. */
  as(key: string | undefined): RestClient {
    return new RestClient(this.#baseUrl, key);
  }

  async call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<RestAnswer> {
    const response = await this.#fetch(method, path, body, headers);
    const text = await response.text();
    const json = response.headers.get("content-type")?.includes("json") === true;
    return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
  }

  /** Events of a stream as they come; leaving the loop ends the request. */
  async *stream(
    method: string,
    path: string,
    body?: unknown,
    options: { headers?: Record<string, string>; opened?: (answer: Response) => void } = {},
  ): AsyncGenerator<EventSourceMessage> {
    const abort = new AbortController();
    try {
      const response = await this.#fetch(method, path, body, options.headers ?? {}, abort.signal);
      options.opened?.(response);
      if (!response.ok || response.body === null) throw new Error(`${response.status}: ${await response.text()}`);
      const events: EventSourceMessage[] = [];
      const parser = createParser({ onEvent: (event) => void events.push(event) });
      const decoder = new TextDecoder();
      for await (const chunk of response.body) {
        parser.feed(decoder.decode(chunk, { stream: true }));
        yield* events.splice(0);
      }
    } finally {
      abort.abort();
    }
  }

  #fetch(method: string, path: string, body: unknown, headers: Record<string, string>, signal?: AbortSignal) {
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    return fetch(new URL(path, this.#baseUrl), {
      method,
      headers: {
        ...(this.#key === undefined ? {} : { authorization: `Bearer ${this.#key}` }),
        ...(text === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(text === undefined ? {} : { body: text }),
      ...(signal === undefined ? {} : { signal }),
    });
  }
}

/** The error of an answer, with its reason and the fields that it names. */
export function errorOf({ body }: RestAnswer): RestError {
  const error = body?.error ?? {};
  const details: Record<string, unknown>[] = error.details ?? [];
  const find = (type: string) => details.find((detail) => String(detail["@type"]).endsWith(type));
  const violations = (find("google.rpc.BadRequest")?.["field_violations"] ?? []) as { field: string }[];
  return {
    code: error.code,
    status: error.status,
    message: error.message,
    reason: String(find("google.rpc.ErrorInfo")?.["reason"] ?? ""),
    fields: violations.map(({ field }) => field),
  };
}
