import type { Component } from "#platform/module/module.ts";
import type { Models, ModelsConfig } from "./models.ts";
import { platformCredentialId } from "./platform-credential.ts";

/**
 * The models in the health report. They are not asked, which would cost money: their breakers say how the last calls went.
 * It is degraded while the breaker of one of them refuses calls; whoever has fallbacks is still answered. Only calls with
 * the platform's own keys count: what a tenant's own server does must not colour the report of all.
 */
export function modelComponent(models: Pick<Models, "breakers">, config: ModelsConfig): Component {
  const isExternal = config.anthropic.apiKey !== undefined || config.openai.apiKey !== undefined;
  return {
    name: "model",
    required: false,
    kind: isExternal ? "external" : "embedded",
    ping: async () => {},
    degraded: () =>
      models.breakers().some(({ state, credentialId }) => state === "open" && credentialId === platformCredentialId),
  };
}
