import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { TenantTier } from "#gen/agentmesh/config/v1/tenant_service_pb.ts";
import { modelAllowed } from "./model-pattern.ts";
import { TIERS, type Tier, tierLimits } from "./tier-limits.ts";

/** The names that the OpenAI SDK's type `ChatModel` lists. */
function openAiModels(): string[] {
  const types = fileURLToPath(import.meta.resolve("openai/resources/shared")).replace(/\.m?js$/, ".d.ts");
  const [, union] = /export type ChatModel = ([^;]+);/.exec(readFileSync(types, "utf8")) ?? [];
  return [...(union ?? "").matchAll(/["']([^"']+)["']/g)].map(([, name]) => name as string);
}

/** The names that the Anthropic SDK's type `Model` lists; the type also admits any other string. */
function sdkModels(): string[] {
  const types = fileURLToPath(import.meta.resolve("@anthropic-ai/sdk/resources/messages/messages")).replace(
    /\.m?js$/,
    ".d.ts",
  );
  const [, union] = /export type Model = ([^;]+);/.exec(readFileSync(types, "utf8")) ?? [];
  return [...(union ?? "").matchAll(/'([^']+)'/g)].map(([, name]) => name as string);
}

const tiers = Object.keys(TIERS).map((key) => Number(key) as Tier);

describe("tier limits", () => {
  test("there is a row for every tier of the contract", () => {
    const contract = Object.values(TenantTier).filter((tier) => tier !== TenantTier.UNSPECIFIED);
    assert.deepEqual(tiers, contract);
  });

  test("the figures are the design document's", () => {
    const figures = tiers.map((tier) => {
      const { maxSessionsPerDay, maxMessagesPerSession, maxTokensPerMonth, maxConcurrentSessions } = TIERS[tier];
      return [maxSessionsPerDay, maxMessagesPerSession, maxTokensPerMonth, maxConcurrentSessions];
    });
    assert.deepEqual(figures, [
      [50n, 20n, 100_000n, 2n],
      [500n, 50n, 1_000_000n, 10n],
      [5_000n, 100n, 10_000_000n, 50n],
      [-1n, -1n, -1n, -1n],
    ]);
  });

  test("every default model is a name of the provider's SDK that its tier may use", () => {
    const known = sdkModels();
    assert.ok(known.length > 5, "the SDK's list of models was not found");
    for (const tier of tiers) {
      const { defaultModel, allowedModels } = TIERS[tier];
      assert.ok(known.includes(defaultModel), defaultModel);
      assert.ok(modelAllowed(allowedModels, defaultModel), defaultModel);
    }
  });

  test("every pattern stands for a model of an SDK, and each tier may use all that the one below may", () => {
    assert.ok(openAiModels().length > 5, "the OpenAI SDK's list of models was not found");
    const known = [...sdkModels(), ...openAiModels()];
    const usable = tiers.map((tier) => known.filter((model) => modelAllowed(TIERS[tier].allowedModels, model)));
    for (const tier of tiers) {
      for (const pattern of TIERS[tier].allowedModels) {
        assert.ok(
          known.some((model) => modelAllowed([pattern], model)),
          pattern,
        );
      }
    }
    for (const [i, models] of usable.entries()) {
      const below = usable[i - 1] ?? [];
      assert.ok(models.length > below.length && below.every((model) => models.includes(model)), `tier ${i + 1}`);
    }
    assert.deepEqual(usable.at(-1), known);
  });

  test("a tier that this release does not know gets the least", () => {
    assert.equal(tierLimits(99 as never), TIERS[1]);
  });
});
