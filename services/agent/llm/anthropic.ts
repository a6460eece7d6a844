import { Anthropic } from "@anthropic-ai/sdk";
import { toModelError } from "./anthropic-errors.ts";
import { anthropicOrigin, toMessagesBody } from "./anthropic-request.ts";
import { AnthropicStreamDecoder } from "./anthropic-stream.ts";
import type { ChatModel, ModelRequest } from "./chat-model.ts";
import { ClientCache } from "./client-cache.ts";
import { modelFacts } from "./model-facts.ts";
import { createProviderModel, temperatureIgnored } from "./provider-model.ts";

/**
 * The SDK speaks the API version of October 2026, which takes no temperature for any model. Models from before it take one
 * from requests of the version before it, which are asked with that version's own form of credential.
 */
const samplingApiVersion = "2023-06-01";

export interface AnthropicModelOptions {
  /** Sends the requests; connect, header and idle timeouts are its own. */
  fetch: typeof globalThis.fetch;
  /** Sends those to an address that came with a credential; without it they are refused. */
  tenantFetch?: typeof globalThis.fetch;
  /** The platform's key; without one, every call must bring its own. */
  apiKey?: string;
  /** Default `https://api.anthropic.com`. */
  baseUrl?: string;
  /** From the request to the headers of the response, in milliseconds. Default 300 000. */
  headersTimeoutMs?: number;
  /** Milliseconds since the epoch; only for a Retry-After that is a date. */
  now?: () => number;
}

/** Anthropic's Messages API. */
export function createAnthropicModel(options: AnthropicModelOptions): ChatModel {
  const now = options.now ?? Date.now;
  const clients = new ClientCache<Anthropic>({
    apiKey: options.apiKey,
    baseUrl: options.baseUrl ?? "https://api.anthropic.com",
    fetch: options.fetch,
    tenantFetch: options.tenantFetch,
    make: ({ apiKey, baseUrl, fetch }) =>
      new Anthropic({
        apiKey,
        // Never from the environment: a token there would go out beside the key.
        authToken: null,
        baseURL: baseUrl,
        fetch,
        maxRetries: 0,
        timeout: options.headersTimeoutMs ?? 300_000,
        logLevel: "off",
        openTelemetry: false,
      }),
  });
  return createProviderModel({
    provider: anthropicOrigin,
    decoder: () => new AnthropicStreamDecoder(),
    toModelError: (error) => toModelError(error, now),
    notices: (request) =>
      request.temperature !== undefined && !sendsTemperature(request) ? [temperatureIgnored(request.model)] : [],
    open(request, credential, signal) {
      const client = clients.get(credential);
      const body = toMessagesBody(request);
      if (!sendsTemperature(request)) return client.messages.create(body, { signal }).asResponse();
      // The API takes 0 to 1 where ours goes to 2.
      const sampled = { ...body, temperature: Math.min(1, request.temperature as number) };
      const headers = { "anthropic-version": samplingApiVersion, "x-api-key": client.apiKey, authorization: null };
      return client.messages.create(sampled, { signal, headers }).asResponse();
    },
  });
}

function sendsTemperature(request: ModelRequest): boolean {
  return request.temperature !== undefined && modelFacts(request.model).acceptsTemperature;
}
