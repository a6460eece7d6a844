import { Anthropic } from "@anthropic-ai/sdk";
import { toModelError } from "./anthropic-errors.ts";
import { anthropicOrigin, toMessagesBody } from "./anthropic-request.ts";
import { AnthropicStreamDecoder } from "./anthropic-stream.ts";
import type { ChatModel, ModelEvent, ModelRequest, StreamOptions } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";
import { modelFacts } from "./model-facts.ts";

/**
 * The SDK speaks the API version of October 2026, which takes no temperature for any model. Models from before it take one
 * from requests of the version before it, which are asked with that version's own form of credential.
 */
const samplingApiVersion = "2023-06-01";

export interface AnthropicModelOptions {
  /** Sends the requests; connect, header and idle timeouts are its own. */
  fetch: typeof globalThis.fetch;
  /** The platform's key; without one, every call must bring its own. */
  apiKey?: string;
  /** Default `https://api.anthropic.com`. */
  baseUrl?: string;
  /** From the request to the headers of the response, in milliseconds. Default 300 000. */
  headersTimeoutMs?: number;
  /** Milliseconds since the epoch; only for a Retry-After that is a date. */
  now?: () => number;
}

/**
 * Anthropic's Messages API. The SDK makes the request (types, credentials, error classes); the stream is read here,
 * because the SDK's own reader costs as much again as everything else. It makes one attempt: retries are another layer.
 */
export function createAnthropicModel(options: AnthropicModelOptions): ChatModel {
  const now = options.now ?? Date.now;
  const clientFor = (apiKey: string) =>
    new Anthropic({
      apiKey,
      baseURL: options.baseUrl ?? "https://api.anthropic.com",
      fetch: options.fetch,
      maxRetries: 0,
      timeout: options.headersTimeoutMs ?? 300_000,
      logLevel: "off",
      openTelemetry: false,
    });
  const platformClient = options.apiKey === undefined ? undefined : clientFor(sendable(options.apiKey));

  async function open(request: ModelRequest, apiKey: string | undefined, signal: AbortSignal): Promise<Response> {
    const client = apiKey === undefined ? platformClient : clientFor(sendable(apiKey));
    if (client === undefined) throw new ModelError("authentication", { retryable: false, detail: "no API key" });
    const body = toMessagesBody(request);
    if (!sendsTemperature(request)) return client.messages.create(body, { signal }).asResponse();
    // The API takes 0 to 1 where ours goes to 2.
    const sampled = { ...body, temperature: Math.min(1, request.temperature as number) };
    const headers = { "anthropic-version": samplingApiVersion, "x-api-key": client.apiKey, authorization: null };
    return client.messages.create(sampled, { signal, headers }).asResponse();
  }

  async function* stream(request: ModelRequest, { signal, apiKey }: StreamOptions): AsyncGenerator<ModelEvent> {
    signal.throwIfAborted();
    if (request.temperature !== undefined && !sendsTemperature(request)) yield temperatureIgnored(request.model);
    // The SDK leaves its listener on the signal it is given, so each call gives it one of its own.
    const call = new AbortController();
    const abort = () => call.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    const decoder = new AnthropicStreamDecoder();
    try {
      const response = await open(request, apiKey, call.signal);
      if (response.body === null) throw decoder.cutOff();
      const chunks = (response.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
      const utf8 = new TextDecoder();
      while (!decoder.complete) {
        const { done, value } = await chunks.next();
        const events = decoder.feed(done ? utf8.decode() : utf8.decode(value, { stream: true }));
        for (const event of events) yield event;
        if (decoder.failure !== undefined) throw decoder.failure;
        if (done && !decoder.complete) throw decoder.cutOff();
      }
      // The last bytes of the body are still under way; taking them keeps the connection.
      await chunks.return?.();
    } catch (error) {
      signal.throwIfAborted();
      throw toModelError(error, now);
    } finally {
      signal.removeEventListener("abort", abort);
      if (!decoder.complete) call.abort();
    }
  }

  return { provider: anthropicOrigin, stream };
}

function sendsTemperature(request: ModelRequest): boolean {
  return request.temperature !== undefined && modelFacts(request.model).acceptsTemperature;
}

function temperatureIgnored(model: string): ModelEvent {
  return {
    type: "notice",
    reason: "TEMPERATURE_IGNORED",
    message: `The model ${model} takes no temperature; the setting was left out.`,
    facts: { model },
  };
}

/** A key that cannot stand in a header would be quoted by the error of whoever tries. */
function sendable(apiKey: string): string {
  if (/^[\x21-\x7e]+$/.test(apiKey)) return apiKey;
  throw new ModelError("authentication", { retryable: false, detail: "the API key has characters that no key has" });
}
