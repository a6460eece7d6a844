import { Ajv2020 } from "ajv/dist/2020.js";
import type { ClientTool } from "#gen/agentmesh/agent/v1/client_tool_pb.ts";
import type { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import { type FieldViolation, invalidFields } from "#platform/rpc/errors.ts";
import { doneToolName, readToolOutputName, type ToolSpec } from "../engine/tool-spec.ts";

/** Most bytes of all schemas of one run together; the contract limits each one. */
export const MAX_SCHEMA_BYTES = 128 * 1024;
/** Deepest nesting of one schema. */
export const MAX_SCHEMA_DEPTH = 32;

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const RESERVED: ReadonlySet<string> = new Set([doneToolName, readToolOutputName]);

type JsonObject = Record<string, unknown>;

/** A tool that the run's caller executes, as it is stored with the run. */
export interface StoredClientTool {
  name: string;
  description: string;
  inputSchemaJson: string;
  risk: RiskClass;
}

/** Narrows a request's tools, whose form was validated. Throws FIELD_INVALID naming each one that could not work. */
export function parseClientTools(tools: readonly ClientTool[]): StoredClientTool[] {
  const wrong: FieldViolation[] = [];
  const names = new Set<string>();
  let bytes = 0;
  for (const [i, { name, inputSchemaJson }] of tools.entries()) {
    const add = (field: string, description: string) =>
      wrong.push({ field: `client_tools[${i}].${field}`, description });
    if (!NAME.test(name)) add("name", "must be 1 to 64 letters, digits, _ or -");
    else if (RESERVED.has(name)) add("name", "is reserved");
    else if (names.has(name)) add("name", "is there already");
    names.add(name);
    bytes += Buffer.byteLength(inputSchemaJson);
    const problem = problemOf(inputSchemaJson);
    if (problem !== undefined) add("input_schema_json", problem);
  }
  if (bytes > MAX_SCHEMA_BYTES) {
    wrong.push({
      field: "client_tools",
      description: `their schemas have more than ${MAX_SCHEMA_BYTES} bytes together`,
    });
  }
  if (wrong.length > 0) throw invalidFields(...wrong);
  return tools.map(({ name, description, inputSchemaJson, risk }) => ({ name, description, inputSchemaJson, risk }));
}

/** Throws FIELD_INVALID for tools that have the name of one of the agent's. */
export function checkCollisions(tools: readonly StoredClientTool[], ofAgent: readonly string[]): void {
  const wrong = tools.flatMap(({ name }, i) =>
    ofAgent.includes(name)
      ? [{ field: `client_tools[${i}].name`, description: "is the name of a tool of the agent" }]
      : [],
  );
  if (wrong.length > 0) throw invalidFields(...wrong);
}

/** The tool as the engine knows it. */
export function clientToolSpec({ name, description, inputSchemaJson, risk }: StoredClientTool): ToolSpec {
  const inputSchema = JSON.parse(inputSchemaJson) as JsonObject;
  return { name, description, inputSchema, checkedSchema: checked(inputSchema), risk, client: true };
}

function problemOf(schemaJson: string): string | undefined {
  let schema: unknown;
  try {
    schema = JSON.parse(schemaJson);
  } catch {
    return "is not valid JSON";
  }
  if (!isObject(schema) || schema["type"] !== "object") return 'must be a schema of type "object"';
  if (isDeeper(schema, MAX_SCHEMA_DEPTH)) return `is nested deeper than ${MAX_SCHEMA_DEPTH} levels`;
  if ("$async" in schema) return "must not be asynchronous";
  const ajv = new Ajv2020({ strict: false, validateFormats: false, addUsedSchema: false, logger: false });
  try {
    if (ajv.validateSchema(schema) !== true) return "is not a valid JSON Schema (2020-12)";
    ajv.compile(checked(schema));
    return undefined;
  } catch {
    return "is not a valid JSON Schema (2020-12)";
  }
}

/**
 * The schema without regular expressions: one of a caller's could keep this process busy for ever, over arguments that a
 * model was made to write. Wherever they stand, for a reference can make anything a schema.
 */
function checked<T>(schema: T): T {
  return JSON.parse(JSON.stringify(schema, leaveOut)) as T;
}

function leaveOut(key: string, value: unknown): unknown {
  return (key === "pattern" && typeof value === "string") || key === "patternProperties" ? undefined : value;
}

function isDeeper(value: unknown, left: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return left === 0 || Object.values(value).some((inner) => isDeeper(inner, left - 1));
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
