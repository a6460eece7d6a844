import type { JsonValue } from "@bufbuild/protobuf";

/** A JSON Schema (2020-12, the dialect of OpenAPI 3.1), or another object of an OpenAPI document. */
export interface Schema {
  [key: string]: JsonValue;
}

/** The same without the members that are undefined. */
export function defined(members: Readonly<Record<string, JsonValue | undefined>>): Schema {
  return Object.fromEntries(
    Object.entries(members).filter((entry): entry is [string, JsonValue] => entry[1] !== undefined),
  );
}

/** A schema that takes null, too: in a request null means "not given" or, in a PATCH, "cleared". */
export function orNull(schema: Schema): Schema {
  const { type, enum: values, ...rest } = schema;
  if (type === undefined) return "$ref" in schema ? { anyOf: [schema, { type: "null" }] } : schema;
  const types = Array.isArray(type) ? [...type, "null"] : [type, "null"];
  return defined({ type: types, enum: Array.isArray(values) ? [...values, null] : undefined, ...rest });
}

/** `tool_call` as `ToolCall`. */
export function pascalCase(name: string): string {
  return name.replace(/(?:^|_)([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase());
}
