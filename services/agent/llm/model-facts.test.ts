import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { contextWindowOf, modelFacts, openAiModel } from "./model-facts.ts";

describe("what is known of a model by its name", () => {
  test("facts of known models are told apart, with a vendor before the name and a date behind it or without", () => {
    const sonnet = { contextWindow: 1_000_000, maxOutputTokens: 128_000, acceptsTemperature: false };
    for (const name of ["claude-sonnet-5-5", "claude-sonnet-5-5-20260928", "anthropic/claude-sonnet-5-5"]) {
      assert.deepEqual(modelFacts(name), sonnet, name);
    }
    assert.equal(modelFacts("claude-haiku-4-5").acceptsTemperature, true);
    assert.equal(modelFacts("gpt-4o-2024-08-06").contextWindow, 128_000);
    assert.equal(modelFacts("gpt-4o-mini").acceptsTemperature, true);
    assert.deepEqual(modelFacts("gpt-6-sol"), {
      contextWindow: 1_050_000,
      maxOutputTokens: 128_000,
      acceptsTemperature: false,
    });
    assert.equal(modelFacts("gpt-5-mini-2025-08-07").contextWindow, 400_000);
    assert.equal(modelFacts("gpt-5-chat-latest").contextWindow, 128_000);
  });

  test("an unknown Claude gets limits that any has, and any other unknown model those of a small server", () => {
    const claude = { contextWindow: 200_000, maxOutputTokens: 64_000, acceptsTemperature: false };
    assert.deepEqual(modelFacts("claude-next"), claude);
    for (const name of ["", "llama-4", "gpt-oss-120b", "constructor", "__proto__", "a/b/c"]) {
      assert.equal(modelFacts(name).contextWindow, 32_768, name);
    }
  });

  test("a configured window comes before what is known", () => {
    assert.equal(contextWindowOf("llama-4", { "llama-4": 131_072 }), 131_072);
    assert.equal(contextWindowOf("gpt-4o", { "llama-4": 131_072 }), 128_000);
    assert.equal(contextWindowOf("constructor", {}), 32_768);
  });

  test("OpenAI's own models are told from those that others serve", () => {
    for (const name of ["o1", "o3-mini", "gpt-5", "gpt-5.4-nano", "gpt-6-sol", "openai/gpt-6-luna"]) {
      assert.equal(openAiModel(name), "thinks", name);
    }
    for (const name of ["gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "gpt-5-chat-latest", "chatgpt-4o-latest"]) {
      assert.notEqual(openAiModel(name), undefined, name);
      assert.notEqual(openAiModel(name), "thinks", name);
    }
    for (const name of ["gpt-oss-20b", "llama-4", "deepseek-chat", "claude-opus-5-5", "olmo"]) {
      assert.equal(openAiModel(name), undefined, name);
    }
  });
});
