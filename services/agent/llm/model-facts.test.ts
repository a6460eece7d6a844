import assert from "node:assert/strict";
import { test } from "node:test";
import { modelFacts } from "./model-facts.ts";

test("facts of known models are told apart, and an unknown name gets limits that any model has", () => {
  assert.deepEqual(modelFacts("claude-sonnet-5-5"), {
    contextWindow: 1_000_000,
    maxOutputTokens: 128_000,
    acceptsTemperature: false,
  });
  assert.equal(modelFacts("claude-haiku-4-5").acceptsTemperature, true);
  for (const name of ["claude-next", "", "constructor", "__proto__"]) {
    assert.deepEqual(modelFacts(name), { contextWindow: 200_000, maxOutputTokens: 64_000, acceptsTemperature: false });
  }
});
