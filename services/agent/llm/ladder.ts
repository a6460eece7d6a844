import type { ModelRung } from "../engine/loop-input.ts";
import type { ModelCredential } from "./chat-model.ts";
import { demoProvider } from "./demo.ts";
import { contextWindowOf } from "./model-facts.ts";
import type { Models } from "./models.ts";
import { type ChosenModels, modelAllowed } from "./routing.ts";

export interface LadderConfig {
  /** What is asked last, for a brief answer without tools; absent: no such rung. */
  readonly simplified?: { readonly provider: string; readonly model: string } | undefined;
  /** Context windows by model name, in place of what is known of them. */
  readonly contextWindows: Readonly<Record<string, number>>;
}

export interface LadderInput {
  chosen: ChosenModels;
  models: Models;
  config: LadderConfig;
  /** The tenant's own credential for a provider; absent: the platform's key. */
  credentialOf: (provider: string) => ModelCredential | undefined;
  /** The tenant's allow-list; it holds for the simplified model too. */
  allowedModels: readonly string[];
}

/**
 * The rungs of a run: what routing chose, then the operator's simplified model. Each model is behind the retry layer and its
 * breaker. The first rung is always there, as the demo model where its provider has no key; a later one without a key is
 * left out, so that nobody falls from a real model into the demo. Throws a ModelError for a first provider that does not
 * exist.
 */
export function buildLadder({ chosen, models, config, credentialOf, allowedModels }: LadderInput): ModelRung[] {
  const rungs: ModelRung[] = [];
  const add = (kind: ModelRung["kind"], provider: string, modelName: string) => {
    const credential = credentialOf(provider);
    const own = credential !== undefined;
    if (rungs.length > 0 && !models.available(provider, own)) return;
    const model = models.get(provider, own);
    const contextWindow = contextWindowOf(modelName, config.contextWindows);
    rungs.push({
      kind,
      model,
      modelName,
      contextWindow,
      ...(own && model.provider !== demoProvider && { credential }),
    });
  };
  for (const { kind, provider, model } of chosen.rungs) add(kind, provider, model);
  const { simplified } = config;
  const demo = rungs[0]?.model.provider === demoProvider;
  if (simplified !== undefined && !demo && modelAllowed(allowedModels, simplified.model)) {
    add("simplified", simplified.provider, simplified.model);
  }
  return rungs;
}
