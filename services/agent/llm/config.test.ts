import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { loadConfig } from "#platform/config/load.ts";
import { readModelSettings } from "./config.ts";

const read = (models: object, env: Record<string, string> = {}) =>
  loadConfig(readModelSettings, { env, dir: false, values: { models } });

describe("the configuration of models", () => {
  test("needs nothing, and then has the providers' own addresses and no simplified model", () => {
    const settings = read({});
    assert.equal(settings.anthropic.apiKey, undefined);
    assert.equal(settings.openai.apiKey, undefined);
    assert.equal(settings.openai.baseUrl, "https://api.openai.com/v1");
    assert.equal(settings.openai.maxTokensField, "auto");
    assert.equal(settings.simplified, undefined);
    assert.deepEqual([settings.contextWindows, settings.prices.size, settings.trustedOrigins], [{}, 0, []]);
    assert.deepEqual(settings.limits, { maxCalls: 500, maxWaiting: 1_000, maxWaitMs: 30_000 });
  });

  test("takes keys and addresses from their customary variables", () => {
    const settings = read({}, { OPENAI_API_KEY: "sk-o", OPENAI_BASE_URL: "http://127.0.0.1:8000/v1" });
    assert.equal(settings.openai.apiKey?.reveal(), "sk-o");
    assert.equal(settings.openai.baseUrl, "http://127.0.0.1:8000/v1");
  });

  test("reads windows and prices of models whatever their names have in them", () => {
    const settings = read({
      simplified: { model: "gpt-6-luna", provider: "openai" },
      context_windows: { "gpt-6.1-sol": 400_000, "Qwen/Qwen3-32B": 131_072 },
      prices: { "gpt-6.1-sol": { input: 1.5, output: 6 } },
      trusted_origins: ["http://models.internal:8000"],
    });
    assert.deepEqual(settings.simplified, { provider: "openai", model: "gpt-6-luna" });
    assert.deepEqual(settings.contextWindows, { "gpt-6.1-sol": 400_000, "Qwen/Qwen3-32B": 131_072 });
    assert.equal(settings.prices.get("gpt-6.1-sol")?.input, 1_500_000_000n);
    assert.deepEqual(settings.trustedOrigins, ["http://models.internal:8000"]);
  });

  test("takes how many calls are made at a time, and how many wait for how long", () => {
    const { limits } = read({ calls: 20, calls_waiting: 0, calls_wait: "2s" });
    assert.deepEqual(limits, { maxCalls: 20, maxWaiting: 0, maxWaitMs: 2_000 });
    assert.throws(() => read({ calls: 0 }), /models\.calls/);
    assert.throws(() => read({ calls_wait: "0s" }), /models\.calls_wait/);
  });

  test("refuses what is no window, no price and no origin, by name", () => {
    assert.throws(() => read({ context_windows: { m: 10 } }), /models\.context_windows/);
    assert.throws(() => read({ context_windows: ["m"] }), /models\.context_windows/);
    assert.throws(() => read({ prices: { m: { input: "dear", output: 1 } } }), /models\.prices/);
    assert.throws(() => read({ trusted_origins: ["http://models.internal/path"] }), /models\.trusted_origins/);
    assert.throws(() => read({ openai: { max_tokens_field: "limit" } }), /models\.openai\.max_tokens_field/);
  });
});
