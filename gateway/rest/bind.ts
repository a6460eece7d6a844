import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import type { Aliases } from "./document-aliases.ts";
import { fieldNamed } from "./json/read-message.ts";
import { isObject, type Json } from "./json/value.ts";
import { decodeSegment, decodeSegments } from "./path.ts";
import { Problems } from "./problems.ts";
import { parseQuery } from "./query.ts";
import { RequestFields } from "./request-fields.ts";
import { type PathVariable, type Route, resolveFields } from "./route.ts";
import { checkMask, deriveMask } from "./update-mask.ts";

/** The parts of an HTTP request from which its message is made. */
export interface RequestParts {
  /** The path's segments, not decoded and without the verb. */
  readonly segments: readonly string[];
  /** Without the question mark. */
  readonly query: string;
  readonly header: Headers;
  /** Undefined when there was no body, or an empty one. */
  readonly body: Json | undefined;
}

export interface BindOptions {
  readonly aliases: Aliases;
  readonly maxQueryParameters: number;
  readonly maxViolations: number;
}

/**
 * Makes the request message of a route from path, query, body and headers. Throws INVALID_ARGUMENT with a violation for
 * everything that is wrong.
 */
export function bindRequest(route: Route, parts: RequestParts, options: BindOptions): Message {
  const problems = new Problems(options.maxViolations);
  const request = new RequestFields(route.method.input, problems);
  bindBody(route, parts.body, request, options.aliases);
  for (const variable of route.variables) bindVariable(variable, parts.segments, request, problems);
  bindQuery(route, parts.query, request, problems, options);
  bindHeaders(route, parts.header, request, problems);
  if (route.updateMask !== undefined && route.body.kind === "field") {
    checkMask(request, route.updateMask, route.body.field, problems);
    problems.throwIfAny();
    deriveMask(request, route.updateMask, route.body.field, route.variables);
  }
  problems.throwIfAny();
  return request.message.message;
}

function bindBody({ body, updateMask }: Route, json: Json = new Map(), request: RequestFields, aliases: Aliases): void {
  if (body.kind === "none") return;
  const fieldAliases = (desc: DescMessage) => aliases.fields(desc);
  if (body.kind === "whole") return void request.readBody(json, undefined, fieldAliases);
  if (updateMask === undefined || !isObject(json)) return void request.readBody(json, body.field, fieldAliases);
  // The mask may stand beside the resource's own fields, unless one of those has its name.
  const isMask = (name: string) =>
    (name === updateMask.name || name === updateMask.jsonName) &&
    body.field.message !== undefined &&
    fieldNamed(body.field.message, name) === undefined;
  const entries = [...json];
  const mask = entries.filter(([name]) => isMask(name));
  request.readBody(new Map(entries.filter(([name]) => !isMask(name))), body.field, fieldAliases);
  if (mask.length > 0) request.readBody(new Map(mask), undefined, undefined);
}

function bindVariable(
  { variable, fields }: PathVariable,
  segments: readonly string[],
  request: RequestFields,
  problems: Problems,
): void {
  const captured = segments.slice(variable.from, variable.to);
  const text = variable.multi ? decodeSegments(captured) : decodeSegment(captured[0] ?? "");
  if (text === undefined) {
    problems.add("FIELD_INVALID", variable.field.join("."), "has escapes in the path that are broken or are not UTF-8");
  } else {
    request.set(fields, text, "path");
  }
}

function bindQuery(
  { method, body, variables }: Route,
  query: string,
  request: RequestFields,
  problems: Problems,
  options: BindOptions,
): void {
  const aliases = options.aliases.query(method);
  for (const { name, value } of parseQuery(query, options.maxQueryParameters, problems)) {
    const fields = resolveFields(method.input, (aliases?.get(name) ?? name).split("."));
    if (fields === undefined) {
      problems.add("FIELD_UNKNOWN", name, "no such field");
      continue;
    }
    const inPath = variables.some((variable) => variable.fields.every((field, index) => field === fields[index]));
    const ofBody = body.kind === "whole" || (body.kind === "field" && fields[0] === body.field);
    if (ofBody && !inPath && !request.has(fields)) {
      problems.add("FIELD_UNKNOWN", name, "is a field of the body and cannot be given in the query");
    } else {
      request.set(fields, value, "query", name);
    }
  }
}

function bindHeaders(route: Route, header: Headers, request: RequestFields, problems: Problems): void {
  const { input } = route.method;
  const key = header.get("idempotency-key");
  const requestId = fieldNamed(input, "request_id");
  if (key !== null && requestId !== undefined) request.set([requestId], unquoted(key), "Idempotency-Key header");
  const match = header.get("if-match");
  if (match !== null && route.httpMethod !== "GET") bindIfMatch(match, etagField(route), request, problems);
  if (route.kind !== "stream" || route.sse.resume === undefined || request.has([route.sse.resume])) return;
  const last = header.get("last-event-id");
  if (last !== null && last !== "") {
    request.set([route.sse.resume], last, "Last-Event-ID header", "Last-Event-ID");
  }
}

/** RFC 9110 §13.1.1. A precondition that cannot be checked must not be dropped: the caller relies on it. */
function bindIfMatch(
  match: string,
  etag: readonly DescField[] | undefined,
  request: RequestFields,
  problems: Problems,
): void {
  if (match === "*") return;
  if (etag === undefined) {
    problems.add("FIELD_INVALID", "If-Match", "this method has no etag to compare");
  } else if (match.startsWith("W/") || match.includes(",")) {
    problems.add("FIELD_INVALID", "If-Match", "must be one strong etag");
  } else {
    request.set(etag, unquoted(match), "If-Match header");
  }
}

/** The field that `If-Match` fills: the request's own, or the one of the resource in its body. */
export function etagField({ method, body }: Route): readonly DescField[] | undefined {
  const own = fieldNamed(method.input, "etag");
  if (own !== undefined) return [own];
  const inBody = body.kind === "field" && body.field.message && fieldNamed(body.field.message, "etag");
  return inBody && body.kind === "field" ? [body.field, inBody] : undefined;
}

/** Both headers are quoted strings in their standards, and are often sent bare. */
function unquoted(value: string): string {
  return /^"[^"]*"$/.test(value) ? value.slice(1, -1) : value;
}
