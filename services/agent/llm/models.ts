import type { Secret } from "#platform/telemetry/secret.ts";
import { createAnthropicModel } from "./anthropic.ts";
import { anthropicOrigin } from "./anthropic-request.ts";
import { type BreakerOptions, type BreakerReport, Breakers } from "./breaker.ts";
import { CallLimits, type CallLimitsOptions } from "./call-limits.ts";
import type { ChatModel } from "./chat-model.ts";
import { createDemoModel, type DemoModelOptions, demoProvider } from "./demo.ts";
import { withGuards } from "./guarded-stream.ts";
import { ModelError } from "./model-error.ts";
import { createOpenAiModel } from "./openai.ts";
import { type MaxTokensField, openAiOrigin } from "./openai-request.ts";
import { type RetryOptions, withRetry } from "./retry.ts";

/** A provider's key of the platform and its address. */
export interface ProviderConfig {
  /** Without one, only calls that bring their own credential are answered. */
  readonly apiKey: Secret<string> | undefined;
  readonly baseUrl: string;
}

export interface ModelsConfig {
  readonly anthropic: ProviderConfig;
  readonly openai: ProviderConfig & { readonly maxTokensField: MaxTokensField };
}

/** Ways to the internet. */
export interface ModelDoors {
  /** To the addresses of {@link ModelsConfig}. */
  fetch: typeof globalThis.fetch;
  /** To addresses that come with a tenant's credential; without it they are refused. */
  tenantFetch?: typeof globalThis.fetch;
}

export interface ModelsOptions {
  demo?: DemoModelOptions;
  retry?: RetryOptions;
  breaker?: BreakerOptions;
  limits?: CallLimitsOptions;
}

/** The models that an agent's `llm_provider` can name. */
export interface Models {
  /**
   * The model of a provider, behind the retry layer, the limits and the breakers: `anthropic` (also when the name is empty), `openai`
   * or `demo`. Throws a ModelError for another name. Where there is no key, neither the platform's nor the tenant's own
   * (`hasOwnKey`, which then comes with each call), it is the demo model with a notice that says so.
   */
  get(provider: string, hasOwnKey?: boolean): ChatModel;
  /** Whether {@link get} gives the model itself and not the demo in its place; false for a provider that does not exist. */
  available(provider: string, hasOwnKey?: boolean): boolean;
  /** Breakers that are open or half open. */
  breakers(): BreakerReport[];
}

/** Makes the models once. */
export function createModels(config: ModelsConfig, doors: ModelDoors, options: ModelsOptions = {}): Models {
  const breakers = new Breakers(options.breaker);
  const limits = new CallLimits(options.limits);
  const guarded = (model: ChatModel) => withRetry(withGuards(model, { breakers, limits }), options.retry);
  const connection = ({ apiKey, baseUrl }: ProviderConfig) => {
    const key = apiKey?.reveal();
    return { ...doors, baseUrl, ...(key !== undefined && { apiKey: key }) };
  };
  const { anthropic, openai } = config;
  const providers = new Map([
    [anthropicOrigin, { key: anthropic.apiKey, model: guarded(createAnthropicModel(connection(anthropic))) }],
    [
      openAiOrigin,
      {
        key: openai.apiKey,
        model: guarded(createOpenAiModel({ ...connection(openai), maxTokensField: openai.maxTokensField })),
      },
    ],
  ]);
  const demo = createDemoModel(options.demo);
  const substitute = createDemoModel({ ...options.demo, substitute: true });
  const find = (provider: string) => providers.get(provider || anthropicOrigin);
  return {
    get(provider, hasOwnKey = false) {
      if (provider === demoProvider) return demo;
      const found = find(provider);
      if (found === undefined) {
        throw new ModelError("invalid_request", { retryable: false, code: "unknown_provider", detail: provider });
      }
      return found.key !== undefined || hasOwnKey ? found.model : substitute;
    },
    available(provider, hasOwnKey = false) {
      if (provider === demoProvider) return true;
      const found = find(provider);
      return found !== undefined && (found.key !== undefined || hasOwnKey);
    },
    breakers: () => breakers.states(),
  };
}
