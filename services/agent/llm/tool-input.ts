/**
 * What a model wrote as arguments, as the object that providers expect to see again: one that is not an object is shown to
 * the model inside one.
 */
export function toolInput(argumentsJson: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(argumentsJson);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Not JSON: below.
  }
  return argumentsJson.trim() === "" ? {} : { invalid_arguments: argumentsJson };
}
