import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { chooseModels, modelAllowed, type Route, type RoutedAgent } from "./routing.ts";

const facts = {
  context: { task_complexity: "high", needs_code_generation: true },
  message: { length: 1_200, has_images: false, language: "en" },
  session: { message_count: 3 },
  tenant: { tier: "pro" },
  agent: { id: "agt_1" },
};

const choice = (llmModel: string, llmProvider = "") => ({ llmModel, llmProvider });
const route = (name: string, condition: string, more: Partial<Route> = {}): Route => ({
  name,
  condition,
  priority: 0,
  llmProvider: "",
  llmModel: `model-of-${name}`,
  fallbacks: [],
  ...more,
});
const agent = (more: Partial<RoutedAgent> = {}): RoutedAgent => ({
  llmProvider: "anthropic",
  llmModel: "own",
  routes: [],
  fallbacks: [],
  ...more,
});

describe("the choice of models", () => {
  test("without a route it is the agent's model and the agent's fallbacks, none twice", () => {
    const fallbacks = [choice("other"), choice("own"), choice("gpt", "openai"), choice("other", "anthropic")];
    assert.deepEqual(chooseModels(agent({ fallbacks }), facts, ["*"]), {
      rungs: [
        { kind: "primary", provider: "anthropic", model: "own" },
        { kind: "fallback", provider: "anthropic", model: "other" },
        { kind: "fallback", provider: "openai", model: "gpt" },
      ],
    });
  });

  test("the highest priority whose condition holds decides, of equal ones the first", () => {
    const routes = [
      route("low", "", { priority: -1 }),
      route("first", 'context.task_complexity == "high"', { priority: 5 }),
      route("second", "message.length > 1000", { priority: 5 }),
      route("top", 'tenant.tier == "free"', { priority: 9 }),
    ];
    assert.equal(chooseModels(agent({ routes }), facts, ["*"]).route, "first");
    const quiet = { ...facts, context: {} };
    assert.equal(chooseModels(agent({ routes }), quiet, ["*"]).route, "second");
    const short = { ...quiet, message: { ...facts.message, length: 5 } };
    assert.equal(chooseModels(agent({ routes }), short, ["*"]).route, "low");
    assert.equal(chooseModels(agent({ routes: routes.slice(1) }), short, ["*"]).route, undefined);
  });

  test("a route brings its own fallbacks and provider", () => {
    const routes = [route("r", "", { llmProvider: "openai", fallbacks: [choice("b", "anthropic"), choice("c")] })];
    assert.deepEqual(chooseModels(agent({ routes, fallbacks: [choice("not this")] }), facts, ["*"]).rungs, [
      { kind: "primary", provider: "openai", model: "model-of-r" },
      { kind: "fallback", provider: "anthropic", model: "b" },
      { kind: "fallback", provider: "anthropic", model: "c" },
    ]);
  });

  test("a condition that fails at run time or cannot be compiled never holds", () => {
    for (const condition of ["context.missing.deeper == 1", "context.task_complexity > 5", "nonsense(", "1 + 1"]) {
      assert.equal(chooseModels(agent({ routes: [route("r", condition)] }), facts, ["*"]).route, undefined, condition);
    }
  });

  test("a model outside of the tenant's allow-list is never chosen", () => {
    const routes = [route("dear", "", { llmModel: "claude-opus-5-5" })];
    const asked = agent({ llmModel: "claude-haiku-5-5", routes, fallbacks: [choice("gpt-6-sol", "openai")] });
    const chosen = chooseModels(asked, facts, ["claude-haiku-*"]);
    assert.deepEqual(chosen, { rungs: [{ kind: "primary", provider: "anthropic", model: "claude-haiku-5-5" }] });
    const replaced = chooseModels({ ...asked, llmModel: "gone" }, facts, ["gpt-*"]);
    assert.deepEqual(replaced.rungs, [{ kind: "primary", provider: "openai", model: "gpt-6-sol" }]);
    assert.throws(() => chooseModels(asked, facts, ["nothing"]), { code: "model_not_allowed", retryable: false });
    assert.throws(() => chooseModels(asked, facts, []), { code: "model_not_allowed" });
  });

  test("patterns are matched whole", () => {
    assert.ok(modelAllowed(["*"], ""));
    assert.ok(modelAllowed(["a*b*c"], "a-b-b-c"));
    assert.ok(!modelAllowed(["a*a"], "a"));
    assert.ok(!modelAllowed(["claude-haiku-*"], "x-claude-haiku-5"));
    assert.ok(!modelAllowed(["gpt"], "gpt-6"));
  });
});
