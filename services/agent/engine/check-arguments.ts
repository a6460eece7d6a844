import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";

/** Arguments ready for a tool, or a text that tells the model what is wrong with them. */
export type CheckedArguments = { argumentsJson: string } | { problem: string };

const maxArgumentsLength = 1024 * 1024;
const maxProblems = 5;
/** Compiled schemas by their text; compiling costs a thousand times what checking does. */
const maxCompiled = 1_000;

type JsonObject = Record<string, unknown>;

/**
 * Checks a call's arguments against the tool's JSON Schema (2020-12). An optional parameter that has a default gets it when
 * it is left out, or is null where null is not allowed. A problem names the parameter and what it must be.
 */
export function checkArguments(tool: string, schema: JsonObject, argumentsJson: string): CheckedArguments {
  const problem = (what: string) => ({ problem: `Invalid arguments for the tool "${tool}": ${what}.` });
  if (argumentsJson.length > maxArgumentsLength) return problem("they are larger than 1 MiB");
  const text = argumentsJson.trim() === "" ? "{}" : argumentsJson;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return problem("they are not valid JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return problem(`they must be a JSON object, got ${typeName(value)}`);
  }
  const validate = compiled(schema);
  if (validate === undefined)
    return { problem: `The tool "${tool}" cannot be called: its parameter schema is not valid.` };
  const before = JSON.stringify(value);
  leaveOutNulls(value, schema);
  if (validate(value) !== true) return problem(describe(validate.errors ?? []));
  const after = JSON.stringify(value);
  // The model's own text keeps what parsing would lose, such as integers beyond 2^53.
  return { argumentsJson: after === before ? text : after };
}

const byObject = new WeakMap<JsonObject, ValidateFunction>();
const byText = new Map<string, ValidateFunction | undefined>();

function compiled(schema: JsonObject): ValidateFunction | undefined {
  const known = byObject.get(schema);
  if (known !== undefined) return known;
  const text = JSON.stringify(schema);
  let validate = byText.get(text);
  if (validate === undefined && !byText.has(text)) {
    validate = compile(schema);
    if (byText.size >= maxCompiled) byText.delete(byText.keys().next().value as string);
    byText.set(text, validate);
  }
  if (validate !== undefined) byObject.set(schema, validate);
  return validate;
}

function compile(schema: JsonObject): ValidateFunction | undefined {
  // `$async` would make the check a promise, which is true of anything.
  if ("$async" in schema) return undefined;
  const ajv = new Ajv2020({
    allErrors: true,
    verbose: true,
    strict: false,
    useDefaults: true,
    validateFormats: false,
    validateSchema: false,
    addUsedSchema: false,
    logger: false,
  });
  try {
    return ajv.compile(schema);
  } catch {
    return undefined;
  }
}

function leaveOutNulls(value: unknown, schema: unknown): void {
  if (!isObject(schema)) return;
  if (Array.isArray(value)) {
    for (const item of value) leaveOutNulls(item, schema["items"]);
    return;
  }
  const properties = schema["properties"];
  if (!isObject(value) || !isObject(properties)) return;
  for (const [name, property] of Object.entries(properties)) {
    if (!Object.hasOwn(value, name)) continue;
    if (value[name] !== null) leaveOutNulls(value[name], property);
    else if (isObject(property) && "default" in property && !allowsNull(property)) delete value[name];
  }
}

function allowsNull(property: JsonObject): boolean {
  const { type, enum: options, default: byDefault } = property;
  if (byDefault === null || (Array.isArray(options) && options.includes(null))) return true;
  return type === undefined || type === "null" || (Array.isArray(type) && type.includes("null"));
}

function describe(errors: ErrorObject[]): string {
  const problems = [...new Set(errors.map(describeOne))];
  const shown = problems.slice(0, maxProblems).join("; ");
  return problems.length > maxProblems ? `${shown}; and ${problems.length - maxProblems} more` : shown;
}

function describeOne(error: ErrorObject): string {
  const path = error.instancePath.slice(1).replaceAll("/", ".").replaceAll("~1", "/").replaceAll("~0", "~");
  const within = (name: unknown) => (path === "" ? String(name) : `${path}.${String(name)}`);
  const subject = path === "" ? "the arguments" : `parameter "${path}"`;
  const params = error.params as JsonObject;
  switch (error.keyword) {
    case "required": {
      const name = params["missingProperty"];
      return `parameter "${within(name)}" is missing${expected(error.parentSchema, name)}`;
    }
    case "type":
      return `${subject} must be ${list(params["type"], " or ")}, got ${typeName(error.data)}`;
    case "enum":
      return `${subject} must be one of ${list(params["allowedValues"], ", ", JSON.stringify)}`;
    case "const":
      return `${subject} must be ${JSON.stringify(params["allowedValue"])}`;
    case "additionalProperties":
      return `parameter "${within(params["additionalProperty"])}" is unknown`;
    case "unevaluatedProperties":
      return `parameter "${within(params["unevaluatedProperty"])}" is unknown`;
    default:
      return `${subject} ${error.message ?? "is not valid"}`;
  }
}

/** ", expected string" for a parameter that is missing, where its schema names a type. */
function expected(parent: unknown, name: unknown): string {
  const properties = isObject(parent) ? parent["properties"] : undefined;
  const property = isObject(properties) ? properties[String(name)] : undefined;
  const type = isObject(property) ? property["type"] : undefined;
  return type === undefined ? "" : `, expected ${list(type, " or ")}`;
}

function list(value: unknown, separator: string, print: (one: unknown) => string = String): string {
  return (Array.isArray(value) ? value : [value]).map(print).join(separator);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : typeof value;
}
