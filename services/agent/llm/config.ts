import type { ConfigSource } from "#platform/config/source.ts";
import type { CallLimitsOptions } from "./call-limits.ts";
import type { LadderConfig } from "./ladder.ts";
import type { ModelsConfig } from "./models.ts";
import { type PriceTable, readPrices } from "./price-table.ts";

/** Everything about models that the configuration says. */
export interface ModelSettings extends ModelsConfig, LadderConfig {
  /** Prices that come before the shipped ones. */
  readonly prices: PriceTable;
  /** Origins that a tenant's own credential may name although they are not https or not public. */
  readonly trustedOrigins: readonly string[];
  readonly limits: Required<Pick<CallLimitsOptions, "maxCalls" | "maxWaiting" | "maxWaitMs">>;
}

const windows = "a map from model to tokens, 1 000 to 100 000 000";

/** Reads the keys below `models`. */
export function readModelSettings(source: ConfigSource): ModelSettings {
  const models = source.section("models");
  const anthropic = models.section("anthropic");
  const openai = models.section("openai");
  const simplified = models.string("simplified.model", {
    optional: true,
    doc: "Model that answers briefly and without tools when an agent's own models and their fallbacks are not available; where it is not set, there is none.",
  });
  const simplifiedProvider = models.choice("simplified.provider", ["anthropic", "openai"], {
    default: "anthropic",
    doc: "Provider of models.simplified.model.",
  });
  return {
    anthropic: {
      apiKey: anthropic.secret("api_key", {
        optional: true,
        doc: "Key of the Anthropic API; without one the demo model answers.",
      }),
      baseUrl: anthropic.url("base_url", {
        default: "https://api.anthropic.com",
        doc: "Base address of the Anthropic API.",
      }),
    },
    openai: {
      apiKey: openai.secret("api_key", {
        optional: true,
        doc: "Key of a server that speaks OpenAI's Chat Completions; any text for a server that wants none.",
      }),
      baseUrl: openai.url("base_url", {
        default: "https://api.openai.com/v1",
        doc: "Base address of that server, with its version: /chat/completions follows it.",
      }),
      maxTokensField: openai.choice("max_tokens_field", ["auto", "max_tokens", "max_completion_tokens"], {
        default: "auto",
        doc: "Field that limits the output. auto: max_completion_tokens for OpenAI and its models that think, else max_tokens.",
      }),
    },
    simplified: simplified ? { provider: simplifiedProvider, model: simplified } : undefined,
    contextWindows: models.object("context_windows", readWindows, {
      type: "map from model to tokens",
      default: {},
      doc: "Tokens that prompt and answer may have together, for models of which it is not known or is known wrongly.",
    }),
    prices: models.object<PriceTable>("prices", readPrices, {
      type: "map from model to prices",
      default: new Map(),
      doc: "USD per million tokens by model, in place of the shipped list prices: input, cache_read, cache_write, output.",
    }),
    trustedOrigins: models.list("trusted_origins", {
      default: [],
      pattern: /^https?:\/\/[^/?#@\s]+$/,
      expected: "origins such as http://models.internal:8000",
      doc: "Servers that a tenant's own credential may name although they are not https, not public or on a low port. All others must be https and public.",
    }),
    limits: {
      maxCalls: models.int("calls", {
        default: 500,
        min: 1,
        max: 100_000,
        doc: "Calls that one process makes at the same time with one key of one provider.",
      }),
      maxWaiting: models.int("calls_waiting", {
        default: 1_000,
        min: 0,
        max: 100_000,
        doc: "Calls that wait for that; the next model of the ladder is asked in place of one more.",
      }),
      maxWaitMs: models.duration("calls_wait", {
        default: "30s",
        min: "10ms",
        max: "5m",
        doc: "Longest wait of a call for that; then the next model of the ladder is asked.",
      }),
    },
  };
}

function readWindows(raw: unknown): Readonly<Record<string, number>> {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) throw new TypeError(windows);
  for (const tokens of Object.values(raw)) {
    if (!Number.isSafeInteger(tokens) || tokens < 1_000 || tokens > 100_000_000) throw new TypeError(windows);
  }
  return { ...raw };
}
