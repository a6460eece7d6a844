import { type ConditionFacts, compileCondition } from "#platform/cel/condition.ts";
import { ModelError } from "./model-error.ts";

/** A model of a provider; an empty provider is the agent's. */
export interface ModelChoice {
  readonly llmProvider: string;
  readonly llmModel: string;
}

export interface Route extends ModelChoice {
  readonly name: string;
  /** CEL; empty always holds. */
  readonly condition: string;
  readonly priority: number;
  readonly fallbacks: readonly ModelChoice[];
}

/** What of a resolved agent decides on models. */
export interface RoutedAgent extends ModelChoice {
  readonly routes: readonly Route[];
  readonly fallbacks: readonly ModelChoice[];
}

export interface ChosenModel {
  kind: "primary" | "fallback";
  provider: string;
  model: string;
}

export interface ChosenModels {
  /** In the order in which they are asked; never empty, no model twice. */
  rungs: ChosenModel[];
  /** Name of the route that decided; absent: the agent's own model. */
  route?: string;
}

/**
 * The models for a request: of the routes whose condition holds the one with the highest priority, of equal ones the first,
 * with its fallbacks; where none holds, the agent's model with the agent's. A model outside of the tenant's allow-list
 * (patterns, in which `*` stands for anything) is never among them: a route to one does not hold, and a fallback takes the
 * place of an agent's model that is no longer allowed. Throws a ModelError (`model_not_allowed`) when nothing is left.
 */
export function chooseModels(
  agent: RoutedAgent,
  facts: ConditionFacts,
  allowedModels: readonly string[],
): ChosenModels {
  const allowed = ({ llmModel }: ModelChoice) => modelAllowed(allowedModels, llmModel);
  const route = agent.routes
    .toSorted((a, b) => b.priority - a.priority)
    .find((candidate) => allowed(candidate) && holds(candidate.condition, facts));
  const choices = route ? [route, ...route.fallbacks] : [agent, ...agent.fallbacks];
  const rungs: ChosenModel[] = [];
  for (const choice of choices.filter(allowed)) {
    const provider = choice.llmProvider || agent.llmProvider || "anthropic";
    const model = choice.llmModel;
    if (rungs.some((rung) => rung.provider === provider && rung.model === model)) continue;
    rungs.push({ kind: rungs.length === 0 ? "primary" : "fallback", provider, model });
  }
  if (rungs.length === 0) {
    throw new ModelError("invalid_request", { retryable: false, code: "model_not_allowed", detail: agent.llmModel });
  }
  return route === undefined ? { rungs } : { rungs, route: route.name };
}

/** A condition that cannot be compiled was refused when the agent was saved; one that is there all the same never holds. */
function holds(condition: string, facts: ConditionFacts): boolean {
  try {
    return compileCondition(condition).holds(facts);
  } catch {
    return false;
  }
}

/** Whether a model's name satisfies one of the patterns, in which `*` stands for any characters, none included. */
export function modelAllowed(patterns: readonly string[], model: string): boolean {
  return patterns.some((pattern) => matches(pattern, model));
}

/** Greedy from piece to piece, so its time is bounded by the lengths whatever the pattern. */
function matches(pattern: string, model: string): boolean {
  const [first = "", ...pieces] = pattern.split("*");
  const last = pieces.pop();
  if (last === undefined) return model === first;
  const end = model.length - last.length;
  if (!model.startsWith(first) || !model.endsWith(last) || end < first.length) return false;
  let at = first.length;
  for (const piece of pieces) {
    const found = model.indexOf(piece, at);
    if (found < 0 || found + piece.length > end) return false;
    at = found + piece.length;
  }
  return true;
}
