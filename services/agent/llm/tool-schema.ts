type Schema = Record<string, unknown>;

const alternatives = ["anyOf", "oneOf"] as const;
/** Keywords that both providers refuse at the top level of a tool's schema, or that mean nothing to a model. */
const dropped = new Set([
  "$schema",
  "$id",
  "$comment",
  "allOf",
  "anyOf",
  "oneOf",
  "not",
  "if",
  "then",
  "else",
  "enum",
  "const",
  "dependentSchemas",
]);

/**
 * A tool's JSON Schema as every provider takes it: an object with properties, and nothing at its top level that combines
 * schemas. What `allOf` demands is demanded, what `anyOf` and `oneOf` allow is allowed; the arguments themselves are still
 * checked against the schema as it was written. Below the top level everything stays.
 */
export function toolSchema(schema: Schema): Schema & { type: "object"; properties: Schema } {
  const properties: Schema = {};
  let required = new Set<string>();
  for (const part of [schema, ...schemas(schema["allOf"])]) {
    Object.assign(properties, isSchema(part["properties"]) ? part["properties"] : {});
    required = required.union(names(part["required"]));
    for (const keyword of alternatives) {
      const choices = schemas(part[keyword]);
      for (const choice of choices) {
        for (const [name, property] of Object.entries(isSchema(choice["properties"]) ? choice["properties"] : {})) {
          if (!Object.hasOwn(properties, name)) properties[name] = property;
        }
      }
      const [first, ...others] = choices.map((choice) => names(choice["required"]));
      if (first !== undefined) required = required.union(others.reduce((all, one) => all.intersection(one), first));
    }
  }
  const kept = Object.entries(schema).filter(([keyword]) => !dropped.has(keyword) && keyword !== "required");
  return {
    ...Object.fromEntries(kept),
    type: "object",
    properties,
    ...(required.size > 0 && { required: [...required] }),
  };
}

function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function schemas(value: unknown): Schema[] {
  return Array.isArray(value) ? value.filter(isSchema) : [];
}

function names(value: unknown): Set<string> {
  return new Set(Array.isArray(value) ? value.filter((name) => typeof name === "string") : []);
}
