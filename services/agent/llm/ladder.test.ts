import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createOperatorFetch } from "#platform/egress/operator-fetch.ts";
import { Secret } from "#platform/telemetry/secret.ts";
import { startModelServer } from "#platform/testing/model-server/server.ts";
import { fails, says } from "#platform/testing/model-server/turn.ts";
import type { ModelCredential, ModelEvent } from "./chat-model.ts";
import { buildLadder, type LadderConfig } from "./ladder.ts";
import { createModels, type ModelsConfig } from "./models.ts";
import type { ChosenModel } from "./routing.ts";

const key = new Secret("sk-platform");
const noKeys: ModelsConfig = {
  anthropic: { apiKey: undefined, baseUrl: "http://127.0.0.1:1" },
  openai: { apiKey: undefined, baseUrl: "http://127.0.0.1:1/v1", maxTokensField: "auto" },
};
const chosen = (...models: string[]) => ({
  rungs: models.map((name, i): ChosenModel => {
    const [provider = "", model = ""] = name.split(":");
    return { kind: i === 0 ? "primary" : "fallback", provider, model };
  }),
});

function ladder(
  names: string[],
  {
    config = {},
    keys = {},
    own = {},
    allowed = ["*"],
  }: {
    config?: Partial<LadderConfig>;
    keys?: Partial<Record<"anthropic" | "openai", boolean>>;
    own?: Record<string, ModelCredential>;
    allowed?: string[];
  },
) {
  const models = createModels(
    {
      anthropic: { ...noKeys.anthropic, apiKey: keys.anthropic ? key : undefined },
      openai: { ...noKeys.openai, apiKey: keys.openai ? key : undefined },
    },
    { fetch: () => assert.fail("nothing is to be asked") },
  );
  return buildLadder({
    chosen: chosen(...names),
    models,
    config: { contextWindows: {}, ...config },
    credentialOf: (provider) => own[provider],
    allowedModels: allowed,
  }).map((rung) => [rung.kind, rung.model.provider, rung.modelName, rung.contextWindow, rung.credential?.id]);
}

const simplified = { provider: "anthropic", model: "claude-haiku-5-5" };

describe("the ladder of a run", () => {
  test("is what was chosen, then the simplified model, each with its window", () => {
    const names = ["anthropic:claude-opus-5-5", "openai:llama-4"];
    const config = { simplified, contextWindows: { "llama-4": 131_072 } };
    assert.deepEqual(ladder(names, { config, keys: { anthropic: true, openai: true } }), [
      ["primary", "anthropic", "claude-opus-5-5", 1_000_000, undefined],
      ["fallback", "openai", "llama-4", 131_072, undefined],
      ["simplified", "anthropic", "claude-haiku-5-5", 1_000_000, undefined],
    ]);
  });

  test("a later rung without a key is left out, the first one becomes the demo and the only one", () => {
    const names = ["anthropic:claude-opus-5-5", "openai:llama-4", "nonsense:x"];
    assert.deepEqual(
      ladder(names, { config: { simplified }, keys: { anthropic: true } }).map(([kind]) => kind),
      ["primary", "simplified"],
    );
    assert.deepEqual(
      ladder(names, { config: { simplified } }).map(([kind, provider]) => [kind, provider]),
      [["primary", "demo"]],
    );
    assert.throws(() => ladder(["nonsense:x"], {}), { code: "unknown_provider" });
  });

  test("a tenant's own credential is enough, and goes with its provider's rungs only", () => {
    const own = { openai: { apiKey: "sk-tenant", id: "own:ten_1:3" } };
    const names = ["openai:gpt-6-sol", "anthropic:claude-opus-5-5"];
    assert.deepEqual(
      ladder(names, { own, keys: { anthropic: true } }).map((rung) => rung[4]),
      ["own:ten_1:3", undefined],
    );
  });

  test("the simplified model must be one that the tenant may use", () => {
    const names = ["anthropic:claude-opus-5-5"];
    const allowed = ["claude-opus-*"];
    assert.equal(ladder(names, { config: { simplified }, keys: { anthropic: true }, allowed }).length, 1);
  });

  test("each rung retries by itself, fails fast when its breaker is open, and the next one still answers", async () => {
    await using server = await startModelServer({ strict: true });
    const door = createOperatorFetch();
    try {
      const models = createModels(
        {
          anthropic: { apiKey: key, baseUrl: server.url },
          openai: { apiKey: key, baseUrl: `${server.url}/v1`, maxTokensField: "auto" },
        },
        { fetch: door.fetch },
        { retry: { sleep: async () => {}, random: () => 0 } },
      );
      const rungs = buildLadder({
        chosen: chosen("anthropic:claude-opus-5-5", "openai:gpt-6-sol"),
        models,
        config: { contextWindows: {} },
        credentialOf: () => undefined,
        allowedModels: ["*"],
      });
      const ask = async (i: number) => {
        const rung = rungs[i] as (typeof rungs)[number];
        const seen: ModelEvent[] = [];
        const messages = [{ role: "user" as const, content: [{ type: "text" as const, text: "Hi" }] }];
        const request = { model: rung.modelName, system: "", messages, tools: [], maxTokens: 10 };
        for await (const e of rung.model.stream(request, { signal: new AbortController().signal })) seen.push(e);
        return seen;
      };
      server.when({ model: "claude-opus-5-5" }, ...Array.from({ length: 5 }, () => fails(529)));
      await assert.rejects(ask(0), { kind: "overloaded", status: 529 });
      assert.equal(server.requests.length, 5);
      await assert.rejects(ask(0), { kind: "overloaded", code: "breaker_open" });
      assert.equal(server.requests.length, 5);
      assert.deepEqual(models.breakers(), [
        { provider: "anthropic", model: "claude-opus-5-5", credentialId: "platform", state: "open" },
      ]);
      server.script(says("Hello"));
      assert.deepEqual((await ask(1)).at(-1), { type: "finish", reason: "end_turn" });
    } finally {
      await door.close();
    }
  });
});
