import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createOperatorFetch } from "#platform/egress/operator-fetch.ts";
import { Secret } from "#platform/telemetry/secret.ts";
import { startModelServer } from "#platform/testing/model-server/server.ts";
import { fails, says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import type { EngineEvent } from "../engine/events.ts";
import { runLoop } from "../engine/loop.ts";
import type { ChatModel, ModelEvent, ModelMessage } from "./chat-model.ts";
import { createModels, type ModelsOptions } from "./models.ts";

async function setup(apiKey?: string, options: ModelsOptions = {}) {
  const server = await startModelServer({ strict: true });
  const door = createOperatorFetch();
  const key = apiKey === undefined ? undefined : new Secret(apiKey);
  const config = {
    anthropic: { apiKey: key, baseUrl: server.url },
    openai: { apiKey: key, baseUrl: `${server.url}/v1`, maxTokensField: "auto" as const },
  };
  return {
    server,
    models: createModels(config, { fetch: door.fetch }, { demo: { paceMs: 0 }, ...options }),
    async [Symbol.asyncDispose]() {
      await door.close();
      await server.close();
    },
  };
}

async function events(model: ChatModel, apiKey?: string, signal = new AbortController().signal): Promise<ModelEvent[]> {
  const request = {
    model: "claude-sonnet-5-5",
    system: "",
    messages: [{ role: "user", content: [{ type: "text", text: "Hello" }] }] as ModelMessage[],
    tools: [],
    maxTokens: 100,
  };
  const seen: ModelEvent[] = [];
  const options = {
    signal,
    ...(apiKey !== undefined && { credential: { apiKey, id: "own:1" } }),
  };
  for await (const event of model.stream(request, options)) seen.push(event);
  return seen;
}

describe("the models", () => {
  test("a Retry-After holds for every call with that key, and for no other", async () => {
    const asked: number[] = [];
    await using all = await setup("sk-platform", {
      retry: { maxAttempts: 1, sleep: async (ms) => void asked.push(ms) },
    });
    const model = all.models.get("anthropic");
    const limited = { kind: "rate_limited", retryable: true };
    all.server.script(fails(429, { headers: { "retry-after": "30" } }), says("of the other key"));
    await assert.rejects(events(model), { ...limited, status: 429, retryAfterMs: 30_000 });
    await assert.rejects(events(model), { ...limited, code: "key_paused" });
    assert.equal((await events(model, "sk-own")).at(-1)?.type, "finish");
    assert.deepEqual(
      all.server.requests.map(({ apiKey }) => apiKey),
      ["sk-platform", "sk-own"],
    );
    assert.deepEqual(asked, []);
  });

  test("no more calls at a time with a key than its limit, over all models of the provider", async () => {
    await using all = await setup("sk-platform", { limits: { maxCalls: 1, maxWaiting: 0 } });
    const model = all.models.get("anthropic");
    all.server.script(says("slow", { fault: { hang: "before_headers" } }), says("own"), says("openai"));
    const cancel = new AbortController();
    const first = events(model, undefined, cancel.signal);
    await assert.rejects(events(model), { kind: "overloaded", code: "too_many_calls", retryable: false });
    assert.equal((await events(model, "sk-own")).at(-1)?.type, "finish");
    assert.equal((await events(all.models.get("openai"))).at(-1)?.type, "finish");
    cancel.abort(new Error("enough"));
    await assert.rejects(first, /enough/);
    all.server.script(says("again"));
    assert.equal((await events(model)).at(-1)?.type, "finish");
  });

  test("with a key Anthropic answers, and the demo model only where it is named", async () => {
    await using all = await setup("sk-platform");
    all.server.script(says("Hi from the server"), says("again"));
    for (const provider of ["anthropic", ""]) {
      const model = all.models.get(provider);
      assert.equal(model.provider, "anthropic");
      assert.ok((await events(model)).some((event) => event.type === "text_delta"));
    }
    assert.equal(all.server.requests[0]?.apiKey, "sk-platform");
    assert.equal(all.models.get("demo").provider, "demo");
    assert.ok((await events(all.models.get("demo"))).every((event) => event.type !== "notice"));
    assert.equal(all.server.requests.length, 2);
  });

  test("without any key the demo model answers, and a notice says so", async () => {
    await using all = await setup();
    const model = all.models.get("anthropic");
    assert.equal(model.provider, "demo");
    const [first] = await events(model);
    assert.equal(first?.type === "notice" && first.reason, "DEMO_MODEL");
    assert.equal(all.server.requests.length, 0);
  });

  test("a tenant's own key is enough for Anthropic", async () => {
    await using all = await setup();
    all.server.script(says("Hi"));
    await events(all.models.get("anthropic", true), "sk-tenant");
    assert.equal(all.server.requests[0]?.apiKey, "sk-tenant");
    await assert.rejects(events(all.models.get("anthropic", true)), { kind: "authentication" });
  });

  test("a provider that does not exist is an error", async () => {
    await using all = await setup("sk");
    assert.throws(() => all.models.get("nonsense"), {
      kind: "invalid_request",
      code: "unknown_provider",
      retryable: false,
    });
  });

  const cases = [
    ["anthropic", "claude-sonnet-5-5"],
    ["openai", "gpt-6-sol"],
  ] as const;
  for (const [provider, modelName] of cases)
    test(`a whole run with ${provider} goes through loop, retry, adapter and socket, with a broken stream on the way`, async () => {
      const waits: number[] = [];
      await using all = await setup("sk", { retry: { sleep: async (ms) => void waits.push(ms), random: () => 0 } });
      all.server.script(
        fails(529),
        { ...says("I will never finish this"), fault: { cut: { afterBytes: 800, how: "break" } } },
        turnOf(
          { type: "thinking", thinking: "Multiply.", signature: "c2ln" },
          { type: "text", text: "Let me compute." },
          toolUse("calculator", { expression: "6*7" }),
          toolUse("calculator", { expression: "1+1" }),
        ),
        says("42 and 2", { usage: { input_tokens: 5, cache_read_input_tokens: 50, output_tokens: 3 } }),
      );
      let ids = 0;
      const loop = runLoop({
        models: [{ kind: "primary", model: all.models.get(provider), modelName, contextWindow: 200_000 }],
        system: "Be brief.",
        history: [{ role: "user", content: [{ type: "text", text: "6*7 and 1+1?" }] }],
        tools: [
          { name: "calculator", description: "Computes.", inputSchema: { type: "object" }, concurrencySafe: true },
        ],
        executeTool: async ({ argumentsJson }) => ({
          content: [{ type: "text", text: argumentsJson.includes("6") ? "42" : "2" }],
        }),
        limits: { maxIterations: 5, maxTokens: 1_000 },
        requireDoneTool: false,
        newItemId: (kind) => `${kind}_${++ids}`,
        signal: new AbortController().signal,
      });
      const seen: EngineEvent[] = [];
      let next = await loop.next();
      for (; !next.done; next = await loop.next()) seen.push(next.value);
      assert.deepEqual([next.value.outcome, next.value.text], ["ANSWERED", "42 and 2"]);
      assert.deepEqual(waits, [1_000, 2_000]);
      assert.deepEqual(
        seen.filter((event) => event.type === "item_discarded" || event.type === "notice").map((event) => event.type),
        ["notice", "item_discarded", "notice"],
      );
      assert.equal(next.value.usage[0]?.cacheReadTokens, 50);
      const blocks = all.server.requests
        .at(-1)
        ?.body.messages.flatMap(({ content }) => (typeof content === "string" ? [] : content));
      assert.deepEqual(
        blocks
          ?.filter(({ type }) => type === "tool_result")
          .map(({ content }) => JSON.stringify(content).match(/\d+/)?.[0]),
        ["42", "2"],
      );
    });
});
