import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Secret } from "#platform/telemetry/secret.ts";
import { Breakers } from "./breaker.ts";
import { modelComponent } from "./model-component.ts";
import type { ModelsConfig } from "./models.ts";

const without: ModelsConfig = {
  anthropic: { apiKey: undefined, baseUrl: "http://a" },
  openai: { apiKey: undefined, baseUrl: "http://b", maxTokensField: "auto" },
};

function setup() {
  let now = 0;
  const breakers = new Breakers({ now: () => now });
  const component = modelComponent({ breakers: () => breakers.states() }, without);
  const fail = (credentialId: string, times = 5) => {
    for (let i = 0; i < times; i++) breakers.enter({ provider: "p", model: "m", credentialId })("failed");
  };
  return { component, breakers, fail, pass: (ms: number) => (now += ms) };
}

describe("models in the health report", () => {
  test("are degraded while a breaker refuses calls, and never unreachable", async () => {
    const { component, fail, pass } = setup();
    assert.equal(component.degraded?.(), false);
    fail("platform", 4);
    assert.equal(component.degraded?.(), false);
    fail("platform", 1);
    assert.equal(component.degraded?.(), true);
    await component.ping(AbortSignal.timeout(1_000));
    assert.equal(component.required, false);
    pass(29_999);
    assert.equal(component.degraded?.(), true);
    // From here on the next call is let through, whether or not one comes.
    pass(1);
    assert.equal(component.degraded?.(), false);
  });

  test("are degraded again when the first probe fails", () => {
    const { component, fail, pass } = setup();
    fail("platform");
    pass(30_000);
    fail("platform", 1);
    assert.equal(component.degraded?.(), true);
  });

  test("do not speak of a tenant's own credential", () => {
    const { component, breakers, fail } = setup();
    fail("own:ten_1:1");
    assert.equal(breakers.states().length, 1);
    assert.equal(component.degraded?.(), false);
  });

  test("are the process's own as long as only the demo can answer", () => {
    const kindOf = (config: ModelsConfig) => modelComponent({ breakers: () => [] }, config).kind;
    assert.equal(kindOf(without), "embedded");
    const apiKey = new Secret("sk-x");
    assert.equal(kindOf({ ...without, anthropic: { ...without.anthropic, apiKey } }), "external");
    assert.equal(kindOf({ ...without, openai: { ...without.openai, apiKey } }), "external");
  });
});
