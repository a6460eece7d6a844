import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  getOption,
  hasOption,
  ScalarType,
} from "@bufbuild/protobuf";
import { http } from "#gen/google/api/annotations_pb.ts";
import type { HttpRule } from "#gen/google/api/http_pb.ts";
import { fieldNamed } from "./json/read-message.ts";
import { wellKnownReader } from "./json/read-well-known.ts";
import { compileSse, type SsePlan } from "./sse/plan.ts";
import { parseTemplate, type Template, type TemplateVariable } from "./template.ts";

/** Where the JSON body goes. */
export type BodyPlan =
  | { readonly kind: "none" }
  /** `body: "*"`: the body is the request message, and there is no query. */
  | { readonly kind: "whole" }
  | { readonly kind: "field"; readonly field: DescField };

export interface PathVariable {
  readonly variable: TemplateVariable;
  /** The fields on the way; the last one is a scalar or an enum. */
  readonly fields: readonly DescField[];
}

/** One HTTP binding of one method. */
export type Route = {
  readonly httpMethod: string;
  readonly template: Template;
  /** The template as it is written in the proto, for messages and documentation. */
  readonly pattern: string;
  readonly variables: readonly PathVariable[];
  readonly body: BodyPlan;
  readonly responseBody: DescField | undefined;
  /** The request's FieldMask over its body, which a PATCH without one gets from the keys of its body. */
  readonly updateMask: DescField | undefined;
} & (
  | { readonly kind: "unary"; readonly method: DescMethodUnary }
  | { readonly kind: "stream"; readonly method: DescMethodStreaming; readonly sse: SsePlan }
);

const BODY_METHODS: ReadonlySet<string> = new Set(["POST", "PUT", "PATCH"]);

/** All bindings of a method. Throws an error that names the method when one of them is invalid. */
export function routesOf(method: DescMethod): Route[] {
  if (!hasOption(method, http)) return [];
  const rule = getOption(method, http);
  try {
    return [rule, ...rule.additionalBindings].map((binding, index) => {
      if (index > 0 && binding.additionalBindings.length > 0) fail("additional_bindings within additional_bindings");
      return routeOf(method, binding);
    });
  } catch (error) {
    throw new Error(`${method.parent.typeName}.${method.name}: ${(error as Error).message}`, { cause: error });
  }
}

function routeOf(method: DescMethod, rule: HttpRule): Route {
  const [httpMethod, pattern] = verbAndPath(rule);
  const template = parseTemplate(pattern);
  const body = bodyOf(method.input, rule.body, httpMethod);
  const common = {
    httpMethod,
    template,
    pattern,
    variables: template.variables.map((variable) => ({
      variable,
      fields: variableFields(method.input, variable, body),
    })),
    body,
    responseBody: rule.responseBody === "" ? undefined : ownField(method.output, rule.responseBody, "response_body"),
    updateMask: httpMethod === "PATCH" && body.kind === "field" ? maskOf(method.input) : undefined,
  };
  switch (method.methodKind) {
    case "unary":
      return { ...common, kind: "unary", method: method as DescMethodUnary };
    case "server_streaming":
      return { ...common, kind: "stream", method: method as DescMethodStreaming, sse: compileSse(method) };
    default:
      return fail("a stream of requests has no REST form");
  }
}

function verbAndPath({ pattern }: HttpRule): [httpMethod: string, path: string] {
  switch (pattern.case) {
    case "get":
    case "put":
    case "post":
    case "delete":
    case "patch":
      return [pattern.case.toUpperCase(), pattern.value];
    case "custom":
      if (!/^[A-Z]+$/.test(pattern.value.kind)) fail(`${JSON.stringify(pattern.value.kind)} is no HTTP method`);
      return [pattern.value.kind, pattern.value.path];
    default:
      return fail("the http rule has no path");
  }
}

function bodyOf(input: DescMessage, body: string, httpMethod: string): BodyPlan {
  if (body === "") return { kind: "none" };
  if (!BODY_METHODS.has(httpMethod)) fail(`${httpMethod} takes no body`);
  if (body === "*") return { kind: "whole" };
  const field = ownField(input, body, "body");
  if (field.fieldKind !== "message") fail(`body: ${body} is not a message`);
  return { kind: "field", field };
}

function variableFields(input: DescMessage, { field: names, multi }: TemplateVariable, body: BodyPlan): DescField[] {
  const fields = resolveFields(input, names);
  const last = fields?.at(-1);
  const path = names.join(".");
  if (fields === undefined || last === undefined) return fail(`{${path}} is no field of ${input.typeName}`);
  if (last.fieldKind !== "scalar" && last.fieldKind !== "enum") fail(`{${path}} is neither a scalar nor an enum`);
  if (fields.some(({ oneof }) => oneof !== undefined)) fail(`{${path}} is part of a oneof`);
  if (multi && last.scalar !== ScalarType.STRING) fail(`{${path}} matches several segments and is not a string`);
  if (body.kind === "field" && fields.length === 1 && fields[0] === body.field) fail(`{${path}} is the body`);
  return fields;
}

/** The fields that a dotted path leads through, in proto or JSON names; undefined when it leads nowhere. */
export function resolveFields(desc: DescMessage, names: readonly string[]): DescField[] | undefined {
  const fields: DescField[] = [];
  let at: DescMessage | undefined = desc;
  for (const name of names) {
    const field: DescField | undefined = at === undefined ? undefined : fieldNamed(at, name);
    if (field === undefined) return undefined;
    fields.push(field);
    at = field.fieldKind === "message" && wellKnownReader(field.message) === undefined ? field.message : undefined;
  }
  return fields;
}

function ownField(desc: DescMessage, name: string, what: string): DescField {
  return desc.fields.find((field) => field.name === name) ?? fail(`${what}: ${name} is no field of ${desc.typeName}`);
}

function maskOf(input: DescMessage): DescField | undefined {
  return input.fields.find(
    ({ name, message }) => name === "update_mask" && message?.typeName === "google.protobuf.FieldMask",
  );
}

function fail(problem: string): never {
  throw new Error(problem);
}
