import { Ajv2020, type ErrorObject } from "ajv/dist/2020.js";

type JsonObject = Record<string, unknown>;

/** Arguments that fit the schema, or a text that tells the model what does not; `read` is what could be read of them. */
export type CheckedArguments =
  | { readonly args: Readonly<JsonObject> }
  | { readonly problem: string; readonly read?: unknown };

export type CheckArguments = (argumentsJson: string) => CheckedArguments;

export const MAX_DEPTH = 64;
const MAX_PROBLEMS = 5;
const MAX_NAME = 64;

/**
 * Compiles a tool's schema. An optional parameter that has a default gets it when it is left out, or is null where null
 * is not allowed. What stands under a name of `dropped` is never an argument, whatever the schema says of it. Throws for a
 * schema that is not valid JSON Schema (2020-12).
 */
export function compileArguments(
  tool: string,
  schema: Readonly<JsonObject>,
  dropped: readonly string[] = [],
): CheckArguments {
  const ajv = new Ajv2020({ allErrors: true, verbose: true, strict: true, useDefaults: true, logger: false });
  const fits = ajv.compile(schema);
  const problem = (what: string, read?: unknown) => ({
    problem: `Invalid arguments for the tool "${tool}": ${what}.`,
    read,
  });
  return (argumentsJson) => {
    const text = argumentsJson.trim() === "" ? "{}" : argumentsJson;
    if (isDeeperThan(text, MAX_DEPTH)) return problem(`they are nested more than ${MAX_DEPTH} levels deep`);
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return problem("they are not valid JSON");
    }
    if (!isObject(value)) return problem(`they must be a JSON object, got ${typeName(value)}`, value);
    for (const name of dropped) delete value[name];
    leaveOutNulls(value, schema);
    return fits(value) === true ? { args: value } : problem(describe(fits.errors ?? []), value);
  };
}

/** Whether brackets nest deeper, strings apart. Looks at the text once, so that nothing deep is ever built. */
function isDeeperThan(text: string, limit: number): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const sign = text.charAt(i);
    if (inString) {
      if (sign === "\\") i++;
      else if (sign === '"') inString = false;
    } else if (sign === '"') inString = true;
    else if (sign === "{" || sign === "[") {
      if (++depth > limit) return true;
    } else if (sign === "}" || sign === "]") depth--;
  }
  return false;
}

/** Some models send null for a parameter that they mean to leave out. */
function leaveOutNulls(value: JsonObject, schema: Readonly<JsonObject>): void {
  const properties = isObject(schema["properties"]) ? schema["properties"] : {};
  for (const [name, property] of Object.entries(properties)) {
    if (!Object.hasOwn(value, name) || value[name] !== null || !isObject(property)) continue;
    if ("default" in property && !allowsNull(property)) delete value[name];
  }
}

function allowsNull({ type, enum: values, default: standard }: JsonObject): boolean {
  if (standard === null || (Array.isArray(values) && values.includes(null))) return true;
  return type === undefined || [type].flat().includes("null");
}

function describe(errors: readonly ErrorObject[]): string {
  const problems = new Set<string>();
  for (const error of errors) {
    problems.add(describeOne(error));
    if (problems.size > MAX_PROBLEMS) return `${[...problems].slice(0, MAX_PROBLEMS).join("; ")}; and more`;
  }
  return [...problems].join("; ");
}

function describeOne({ keyword, instancePath, params, parentSchema, data, message }: ErrorObject): string {
  const path = instancePath.slice(1).replaceAll("/", ".").replaceAll("~1", "/").replaceAll("~0", "~");
  const subject = path === "" ? "the arguments" : `parameter "${short(path)}"`;
  const parameter = (name: unknown) => `parameter "${short(path === "" ? String(name) : `${path}.${String(name)}`)}"`;
  const given = params as JsonObject;
  switch (keyword) {
    case "required":
      return `${parameter(given["missingProperty"])} is missing${expected(parentSchema, given["missingProperty"])}`;
    case "type":
      return `${subject} must be ${[given["type"]].flat().join(" or ")}, got ${typeName(data)}`;
    case "enum":
      return `${subject} must be one of ${[given["allowedValues"]].flat().map(quoted).join(", ")}`;
    case "const":
      return `${subject} must be ${quoted(given["allowedValue"])}`;
    case "additionalProperties":
      return `${parameter(given["additionalProperty"])} is unknown`;
    case "unevaluatedProperties":
      return `${parameter(given["unevaluatedProperty"])} is unknown`;
    default:
      return `${subject} ${message ?? "is not valid"}`;
  }
}

/** ", expected string" for a parameter that is missing, where its schema names a type or values. */
function expected(parent: unknown, name: unknown): string {
  const properties = isObject(parent) && isObject(parent["properties"]) ? parent["properties"] : {};
  const property = properties[String(name)];
  if (!isObject(property)) return "";
  if (Array.isArray(property["enum"])) return `, expected one of ${property["enum"].map(quoted).join(", ")}`;
  return property["type"] === undefined ? "" : `, expected ${[property["type"]].flat().join(" or ")}`;
}

function short(name: string): string {
  return name.length > MAX_NAME ? `${name.slice(0, MAX_NAME)}…` : name;
}

function quoted(value: unknown): string {
  return JSON.stringify(value);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}
