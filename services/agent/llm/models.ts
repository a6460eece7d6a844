import type { Secret } from "#platform/telemetry/secret.ts";
import { createAnthropicModel } from "./anthropic.ts";
import { anthropicOrigin } from "./anthropic-request.ts";
import type { ChatModel } from "./chat-model.ts";
import { createDemoModel, type DemoModelOptions, demoProvider } from "./demo.ts";
import { ModelError } from "./model-error.ts";
import { type RetryOptions, withRetry } from "./retry.ts";

export interface ModelsConfig {
  /** The platform's key for Anthropic; without one the demo model answers, unless a call brings its own. */
  readonly apiKey: Secret<string> | undefined;
  readonly baseUrl: string;
}

export interface ModelsOptions {
  demo?: DemoModelOptions;
  retry?: RetryOptions;
}

/** The models that an agent's `llm_provider` can name. */
export interface Models {
  /**
   * The model of a provider: `anthropic` (also when the name is empty) or `demo`. Throws a ModelError for another name.
   * Where Anthropic is asked for and there is no key, neither the platform's nor the tenant's own (`hasOwnKey`, which
   * then comes with each call), it is the demo model with a notice that says so.
   */
  get(provider: string, hasOwnKey?: boolean): ChatModel;
}

/** Makes the models once; `fetch` is the operator's door. */
export function createModels(
  config: ModelsConfig,
  fetch: typeof globalThis.fetch,
  options: ModelsOptions = {},
): Models {
  const apiKey = config.apiKey?.reveal();
  const { baseUrl } = config;
  const anthropic = withRetry(
    createAnthropicModel({ fetch, baseUrl, ...(apiKey !== undefined && { apiKey }) }),
    options.retry,
  );
  const demo = createDemoModel(options.demo);
  const substitute = createDemoModel({ ...options.demo, substitute: true });
  return {
    get(provider, hasOwnKey = false) {
      if (provider === demoProvider) return demo;
      if (provider !== anthropicOrigin && provider !== "") {
        throw new ModelError("invalid_request", { retryable: false, code: "unknown_provider", detail: provider });
      }
      return apiKey !== undefined || hasOwnKey ? anthropic : substitute;
    },
  };
}
