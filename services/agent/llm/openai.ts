import { OpenAI } from "openai";
import type { ChatModel } from "./chat-model.ts";
import { ClientCache } from "./client-cache.ts";
import { toModelError } from "./openai-errors.ts";
import { type MaxTokensField, openAiOrigin, takesTemperature, toCompletionsBody } from "./openai-request.ts";
import { CompletionsStreamDecoder } from "./openai-stream.ts";
import { createProviderModel, temperatureIgnored } from "./provider-model.ts";

export interface OpenAiModelOptions {
  /** Sends the requests; connect, header and idle timeouts are its own. */
  fetch: typeof globalThis.fetch;
  /** Sends those to an address that came with a credential; without it they are refused. */
  tenantFetch?: typeof globalThis.fetch;
  /** The platform's key; without one, every call must bring its own. */
  apiKey?: string;
  /** Default `https://api.openai.com/v1`. */
  baseUrl?: string;
  /** Default `auto`. */
  maxTokensField?: MaxTokensField;
  /** From the request to the headers of the response, in milliseconds. Default 300 000. */
  headersTimeoutMs?: number;
  /** Milliseconds since the epoch; only for a Retry-After that is a date. */
  now?: () => number;
}

/** Any server that speaks OpenAI's Chat Completions with tools. */
export function createOpenAiModel(options: OpenAiModelOptions): ChatModel {
  const now = options.now ?? Date.now;
  const clients = new ClientCache<OpenAI>({
    apiKey: options.apiKey,
    baseUrl: options.baseUrl ?? "https://api.openai.com/v1",
    fetch: options.fetch,
    tenantFetch: options.tenantFetch,
    make: ({ apiKey, baseUrl, fetch }) =>
      new OpenAI({
        apiKey,
        // Never from the environment: they belong to the platform's account, and a tenant's server need not know them.
        adminAPIKey: null,
        organization: null,
        project: null,
        webhookSecret: null,
        baseURL: baseUrl,
        fetch,
        maxRetries: 0,
        timeout: options.headersTimeoutMs ?? 300_000,
        logLevel: "off",
      }),
  });
  return createProviderModel({
    provider: openAiOrigin,
    decoder: () => new CompletionsStreamDecoder(),
    toModelError: (error) => toModelError(error, now),
    notices: (request) =>
      request.temperature !== undefined && !takesTemperature(request) ? [temperatureIgnored(request.model)] : [],
    open(request, credential, signal) {
      const client = clients.get(credential);
      const { maxTokensField } = options;
      const body = toCompletionsBody(request, {
        baseUrl: client.baseURL,
        ...(maxTokensField !== undefined && { maxTokensField }),
      });
      return client.chat.completions.create(body, { signal }).asResponse();
    },
  });
}
