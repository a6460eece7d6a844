import type { ModelError } from "../llm/model-error.ts";
import { type EngineNotice, notice } from "./events.ts";
import type { ModelRung } from "./loop-input.ts";

/** The models of a run: it begins with the first and goes down, never up. */
export class Ladder {
  readonly #rungs: readonly ModelRung[];
  #at = 0;

  constructor(rungs: readonly ModelRung[]) {
    if (rungs.length === 0) throw new RangeError("a run needs a model");
    this.#rungs = rungs;
  }

  get rung(): ModelRung {
    return this.#rungs[this.#at] as ModelRung;
  }

  /** Goes to the next rung that may answer where the current one failed like this, and tells of it; undefined: there is none. */
  descend(error: ModelError): EngineNotice | undefined {
    const from = this.rung;
    const next = this.#rungs.findIndex((to, i) => i > this.#at && mayAnswer(to, from, error));
    if (next < 0) return undefined;
    this.#at = next;
    const facts = { from: from.modelName, to: this.rung.modelName, reason: error.kind };
    return this.rung.kind === "simplified"
      ? notice("SIMPLIFIED_MODE", "The model is not available; a simpler one answers, without tools.", { facts })
      : notice("MODEL_FALLBACK", "The model is not available; another one goes on.", { facts });
  }
}

/** True when the request itself is at fault: no other model would take it. */
export function isMalformed(error: ModelError): boolean {
  return error.kind === "invalid_request" && !isUnknownModel(error);
}

function isUnknownModel({ status, code }: ModelError): boolean {
  return status === 404 || code === "unknown_provider" || code === "not_found_error" || code === "model_not_found";
}

function mayAnswer(to: ModelRung, from: ModelRung, error: ModelError): boolean {
  const isOther = to.model.provider !== from.model.provider || to.modelName !== from.modelName;
  switch (error.kind) {
    case "context_overflow":
      return to.contextWindow > from.contextWindow;
    case "invalid_request":
      return isUnknownModel(error) && isOther;
    case "authentication":
      return isOther || to.credential?.id !== from.credential?.id;
    default:
      return true;
  }
}
