import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { etagField } from "../rest/bind.ts";
import type { Aliases } from "../rest/document-aliases.ts";
import { fieldNamed } from "../rest/json/read-message.ts";
import { isWrapper } from "../rest/json/read-well-known.ts";
import type { Route } from "../rest/route.ts";
import { isRequired } from "./constraints.ts";
import { defined, type Schema } from "./schema.ts";
import type { SchemaBook } from "./schema-book.ts";

/** A route's parameters, in the order path, query, headers. @param pathNames of the path's parameters, by segment */
export function parametersOf(
  route: Route,
  pathNames: ReadonlyMap<number, string>,
  book: SchemaBook,
  aliases: Aliases,
): Schema[] {
  return [
    ...pathParameters(route, pathNames, book),
    ...queryParameters(route, book, aliases),
    ...headerParameters(route),
  ];
}

function pathParameters(route: Route, pathNames: ReadonlyMap<number, string>, book: SchemaBook): Schema[] {
  return [...pathNames].map(([segment, name]) => {
    const variable = route.variables.find(
      ({ variable: { from, to = Number.POSITIVE_INFINITY } }) => from <= segment && segment < to,
    );
    const field = variable?.fields.at(-1);
    const { description, ...schema } =
      field === undefined || variable?.variable.multi === true ? { type: "string" } : book.field(field, "text");
    return defined({ name, in: "path", required: true, description, schema });
  });
}

const TEXTUAL: ReadonlySet<string> = new Set([
  "google.protobuf.Timestamp",
  "google.protobuf.Duration",
  "google.protobuf.FieldMask",
]);

function queryParameters(route: Route, book: SchemaBook, aliases: Aliases): Schema[] {
  const { method, body, variables } = route;
  if (body.kind === "whole") return [];
  const elsewhere = new Set<DescField | undefined>(
    variables.filter(({ fields }) => fields.length === 1).map(({ fields }) => fields[0]),
  );
  if (body.kind === "field") elsewhere.add(body.field);
  const parameters = new Map<string, Schema>();
  const add = (desc: DescMessage, prefix: string, above: readonly DescMessage[]) => {
    for (const field of desc.fields) {
      if (above.length === 0 && elsewhere.has(field)) continue;
      const name = prefix + field.name;
      const inner = field.message;
      if (inner === undefined || TEXTUAL.has(inner.typeName) || isWrapper(inner)) {
        if (field.fieldKind !== "map") parameters.set(name, queryParameter(name, field, book));
      } else if (
        field.fieldKind === "message" &&
        !inner.typeName.startsWith("google.protobuf.") &&
        inner !== desc &&
        !above.includes(inner)
      ) {
        add(inner, `${name}.`, [...above, desc]);
      }
    }
  };
  add(method.input, "", []);
  for (const [alias, name] of aliases.query(method) ?? []) {
    const of = parameters.get(name);
    if (of !== undefined) parameters.set(alias, { ...of, name: alias, description: `The same as \`${name}\`.` });
  }
  return [...parameters.values()];
}

function queryParameter(name: string, field: DescField, book: SchemaBook): Schema {
  const { description, deprecated, ...schema } = book.field(field, "text");
  const required = isRequired(field) ? true : undefined;
  return defined({ name, in: "query", required, description, deprecated, schema });
}

/** Headers of which the gateway makes fields of the request, and the deadline. */
export const HEADER_PARAMETERS: Readonly<Record<string, Schema>> = {
  IdempotencyKey: {
    name: "Idempotency-Key",
    in: "header",
    description:
      "Makes a retry safe: the same key with the same content has the effect of one call. The same as `request_id`.",
    schema: { type: "string", minLength: 1, maxLength: 128 },
  },
  IfMatch: {
    name: "If-Match",
    in: "header",
    description: "Change only this version: one strong etag, or `*` for any. The same as `etag`.",
    schema: { type: "string" },
  },
  LastEventId: {
    name: "Last-Event-ID",
    in: "header",
    description: "Resume after this event; browsers send it by themselves.",
    schema: { type: "string", pattern: "^[0-9]*$" },
  },
  RequestTimeout: {
    name: "X-Request-Timeout",
    in: "header",
    description: "Deadline of the call, in seconds. `Connect-Timeout-Ms`, in milliseconds, is taken, too.",
    schema: { type: "number", exclusiveMinimum: 0 },
  },
};

function headerParameters(route: Route): Schema[] {
  const names: string[] = [];
  if (fieldNamed(route.method.input, "request_id") !== undefined) names.push("IdempotencyKey");
  if (route.httpMethod !== "GET" && etagField(route) !== undefined) names.push("IfMatch");
  if (route.kind === "stream" && route.sse.resume !== undefined) names.push("LastEventId");
  names.push("RequestTimeout");
  return names.map((name) => ({ $ref: `#/components/parameters/${name}` }));
}
