import { Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import { authRule } from "#platform/rpc/method-rules.ts";
import type { Aliases } from "../rest/document-aliases.ts";
import { fieldNamed } from "../rest/json/read-message.ts";
import type { Route } from "../rest/route.ts";
import { isRequired } from "./constraints.ts";
import { errorsOf, headersOf } from "./error-schemas.ts";
import { eventNames, eventSchema } from "./event-schemas.ts";
import { TELLS_LOCATION } from "./overlay.ts";
import { parametersOf } from "./parameters.ts";
import type { DocumentPath } from "./path-names.ts";
import { docOf } from "./proto-docs.ts";
import { defined, type Schema } from "./schema.ts";
import type { SchemaBook } from "./schema-book.ts";

export interface OperationContext {
  readonly book: SchemaBook;
  readonly aliases: Aliases;
  /** A reference to the body of errors. */
  readonly error: Schema;
}

/** One route as an OpenAPI operation. @param binding number of the route among those of its method, from 0 */
export function operationOf(route: Route, { names }: DocumentPath, binding: number, context: OperationContext): Schema {
  const { method } = route;
  const { anyScope, exposure } = authRule(method);
  const isOpen = exposure === Exposure.ANONYMOUS;
  const text = docOf(method);
  return defined({
    operationId: `${method.parent.name}_${method.name}${binding === 0 ? "" : `_${binding + 1}`}`,
    tags: [method.parent.name],
    summary: text === undefined ? undefined : firstSentence(text),
    description: paragraphs(text, isOpen ? undefined : scopesText(anyScope)),
    deprecated: method.deprecated ? true : undefined,
    parameters: parametersOf(route, names, context.book, context.aliases),
    requestBody: requestBody(route, context.book),
    responses: {
      "200": route.kind === "stream" ? streamAnswer(route, context) : unaryAnswer(route, context),
      ...errorsOf({
        auth: !isOpen,
        missing:
          method.input.fields.some(({ name }) => name.endsWith("_id") && name !== "request_id") ||
          route.variables.length > 0,
        change: route.httpMethod !== "GET",
        body: route.body.kind !== "none",
      }),
    },
    security: isOpen ? [] : securityOf(anyScope),
    "x-rpc": `${method.parent.typeName}/${method.name}`,
  });
}

export const SECURITY_SCHEMES: Readonly<Record<string, Schema>> = {
  bearer: { type: "http", scheme: "bearer", description: "An API key: `Authorization: Bearer am_live_…`." },
  apiKey: { type: "apiKey", in: "header", name: "X-API-Key", description: "The same API key in a header of its own." },
};

/** Alternatives: either scheme, and any of the scopes. */
function securityOf(anyScope: readonly string[]): Schema[] {
  const roles = anyScope.length === 0 ? [[]] : anyScope.map((scope) => [scope]);
  return roles.flatMap((role) => Object.keys(SECURITY_SCHEMES).map((scheme) => ({ [scheme]: role })));
}

function scopesText(anyScope: readonly string[]): string | undefined {
  if (anyScope.length === 0) return undefined;
  const scopes = anyScope.map((scope) => `\`${scope}\``).join(" or ");
  return `Needs the scope ${scopes}.`;
}

function requestBody({ body, method, variables, httpMethod }: Route, book: SchemaBook): Schema | undefined {
  if (body.kind === "none") return undefined;
  if (body.kind === "whole") {
    const inPath = new Set(variables.flatMap(({ fields }) => (fields.length === 1 ? fields : [])));
    const schema = inPath.size === 0 ? book.ref(method.input, "input") : book.message(method.input, "input", inPath);
    return bodyOf(
      schema,
      method.input.fields.some((field) => isRequired(field) && !inPath.has(field)),
    );
  }
  const { message } = body.field;
  if (message === undefined) return undefined;
  const required = isRequired(body.field);
  if (httpMethod !== "PATCH" || !message.fields.some(isRequired)) return bodyOf(book.ref(message, "input"), required);
  const { required: _none, ...partial } = book.message(message, "input");
  return bodyOf(partial, required);
}

function bodyOf(schema: Schema, required: boolean): Schema {
  return { required, content: { "application/json": { schema } } };
}

function unaryAnswer(route: Route, { book, aliases }: OperationContext): Schema {
  const { method, responseBody } = route;
  const shown = responseBody === undefined ? method.output : responseBody.message;
  const hasEtag = responseBody !== undefined && shown !== undefined && fieldNamed(shown, "etag") !== undefined;
  return {
    description: (shown && docOf(shown)) ?? "The answer.",
    headers: headersOf([...answerHeaders(route), ...(hasEtag ? ["ETag"] : [])]),
    content: { "application/json": { schema: answerSchema(route, book, aliases) } },
  };
}

function answerHeaders({ method }: Route): string[] {
  const names = ["X-Request-Id"];
  if (authRule(method).exposure !== Exposure.ANONYMOUS) names.push("RateLimit", "RateLimit-Policy");
  if (TELLS_LOCATION.has(method.parent.typeName)) names.push("Location");
  return names;
}

function answerSchema({ method, responseBody }: Route, book: SchemaBook, aliases: Aliases): Schema {
  if (responseBody?.fieldKind === "message") return book.ref(responseBody.message, "output");
  if (responseBody !== undefined) return book.field(responseBody, "output");
  const more = aliases.answer(method);
  return more === undefined
    ? book.ref(method.output, "output")
    : withMembers(book.message(method.output, "output"), more);
}

/** Members that the answer has besides its message's fields; see rest/document-aliases.ts. */
function withMembers(schema: Schema, members: Schema): Schema {
  const constants = Object.entries(members).map(([name, value]) => [name, { const: value }] as const);
  const { properties = {}, required = [] } = schema;
  return {
    ...schema,
    properties: { ...(properties as Schema), ...Object.fromEntries(constants) },
    required: [...(required as string[]), ...Object.keys(members)],
  };
}

function streamAnswer(route: Route & { kind: "stream" }, { book, error }: OperationContext): Schema {
  const names = eventNames(route)
    .map((name) => `\`${name}\``)
    .join(", ");
  return {
    description:
      `Server-Sent Events: ${names}. The schema is that of an event's \`data:\`; the event's name is in \`event:\`. A comment ` +
      "line keeps a silent stream alive.",
    headers: headersOf(answerHeaders(route)),
    content: { "text/event-stream": { schema: eventSchema(route, book, error) } },
  };
}

function firstSentence(text: string): string {
  return /^.*?[.:;](?=\s|$)/s.exec(text)?.[0].slice(0, -1) ?? text;
}

function paragraphs(...parts: readonly (string | undefined)[]): string | undefined {
  const text = parts.filter((part) => part !== undefined).join("\n\n");
  return text === "" ? undefined : text;
}
