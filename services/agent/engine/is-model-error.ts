import type { ModelError } from "../llm/model-error.ts";

/** Whether a model failed, and not the program; told by its name, because the engine knows the model layer's types alone. */
export function isModelError(error: unknown): error is ModelError {
  return error instanceof Error && error.name === "ModelError";
}
