import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { readPrices } from "./price-table.ts";
import { createPricing, type PricedUsage } from "./pricing.ts";

const usage = (model: string, more: Partial<PricedUsage> = {}): PricedUsage => ({
  provider: "anthropic",
  model,
  inputTokens: 0,
  cacheReadTokens: 0,
  cacheWriteTokens: 0,
  outputTokens: 0,
  ...more,
});

describe("the price of a call", () => {
  test("behaviour 45: each class of tokens has its own price, in whole nano-USD", () => {
    const { costOf } = createPricing();
    assert.equal(costOf(usage("claude-opus-5-5", { inputTokens: 1_000_000 })), 4_000_000_000n);
    assert.equal(costOf(usage("claude-opus-5-5", { cacheReadTokens: 1 })), 200n);
    assert.equal(costOf(usage("claude-opus-5-5", { cacheWriteTokens: 1 })), 5_000n);
    assert.equal(costOf(usage("claude-opus-5-5", { outputTokens: 3 })), 60_000n);
    assert.equal(costOf(usage("claude-haiku-5-5", { cacheWriteTokens: 1 })), 125n);
    const all = { inputTokens: 7, cacheReadTokens: 11, cacheWriteTokens: 13, outputTokens: 17 };
    assert.equal(costOf(usage("claude-sonnet-5-5", all)), 7n * 2_000n + 11n * 100n + 13n * 2_500n + 17n * 10_000n);
  });

  test("a prompt above a model's threshold makes the whole call dearer, cached tokens counted", () => {
    const { costOf } = createPricing();
    const at = usage("claude-haiku-5-5", { inputTokens: 40_000, cacheReadTokens: 60_000, outputTokens: 1 });
    assert.equal(costOf(at), 40_000n * 100n + 60_000n * 10n + 500n);
    assert.equal(costOf({ ...at, cacheWriteTokens: 1 }), 40_000n * 500n + 60_000n * 50n + 625n + 2_500n);
  });

  test("behaviour 45: an unknown price is null with one warning per model, never 0", () => {
    const warned: string[] = [];
    const { costOf } = createPricing({ onUnknown: (provider, model) => warned.push(`${provider} ${model}`) });
    for (const model of ["claude-next", "claude-next", "llama-4", "constructor", "", "anthropic/claude-opus-5-5"]) {
      assert.equal(costOf(usage(model, { inputTokens: 5 })), null, model);
    }
    assert.equal(warned.length, 5);
    assert.equal(warned[0], "anthropic claude-next");
    for (let i = 0; i < 2_000; i++) costOf(usage(`made-up-${i}`));
    assert.equal(warned.length, 1_000);
  });

  test("a name with a date has the price of its family, and the demo model costs nothing", () => {
    const { costOf } = createPricing();
    const expected = costOf(usage("claude-haiku-4-5", { inputTokens: 9 }));
    assert.equal(costOf(usage("claude-haiku-4-5-20251001", { inputTokens: 9 })), expected);
    assert.equal(costOf(usage("gpt-4o-2024-08-06", { provider: "openai", inputTokens: 1 })), 2_500n);
    assert.equal(costOf(usage("demo", { provider: "demo", inputTokens: 9 })), 0n);
  });

  test("the configuration's prices come before the shipped ones", () => {
    const overrides = readPrices({
      "claude-opus-5-5": { input: "0.000001", output: 0.5 },
      own: { input: 1, output: 2 },
    });
    const { costOf } = createPricing({ overrides });
    assert.equal(costOf(usage("claude-opus-5-5", { inputTokens: 1_000_000 })), 1_000n);
    assert.equal(costOf(usage("own", { cacheReadTokens: 1, cacheWriteTokens: 1, outputTokens: 1 })), 4_000n);
    assert.equal(costOf(usage("claude-opus-5-5", { inputTokens: 1 })), 1n);
  });

  test("a table that is not one is refused with what is expected", () => {
    const bad: unknown[] = [[], null, "x", { m: 5 }, { m: { input: 1 } }, { m: { input: -1, output: 1 } }];
    bad.push({ m: { input: "1e3", output: 1 } }, { m: { input: 0.1234567, output: 1 } }, { m: { in: 1, output: 1 } });
    bad.push({ m: { input: 1, output: 1, long_prompt: { input: 1, output: 1 } } });
    for (const raw of bad) assert.throws(() => readPrices(raw), /USD per million tokens/, JSON.stringify(raw));
  });

  test("behaviour 45: the cost of calls is the sum of what each took, whatever they are", () => {
    const { costOf } = createPricing();
    const tokens = fc.nat(50_000);
    const call = fc.record({
      inputTokens: tokens,
      cacheReadTokens: tokens,
      cacheWriteTokens: fc.constant(0),
      outputTokens: tokens,
    });
    fc.assert(
      fc.property(fc.array(call, { maxLength: 30 }), (calls) => {
        const entries = calls.map((one) => costOf(usage("claude-sonnet-5-5", one)) ?? -1n);
        const total = entries.reduce((sum, one) => sum + one, 0n);
        const sum = (name: "inputTokens" | "cacheReadTokens" | "outputTokens") =>
          calls.reduce((all, one) => all + one[name], 0);
        const together = usage("claude-sonnet-5-5", {
          inputTokens: sum("inputTokens"),
          cacheReadTokens: sum("cacheReadTokens"),
          outputTokens: sum("outputTokens"),
        });
        assert.equal(total, costOf(together));
      }),
    );
  });

  test("behaviour 47: prices need no network", async () => {
    const { fetch } = globalThis;
    globalThis.fetch = () => assert.fail("the network was asked for prices");
    try {
      assert.notEqual(createPricing().costOf(usage("claude-opus-5-5", { inputTokens: 1 })), null);
    } finally {
      globalThis.fetch = fetch;
    }
  });
});
