import type { DescField, DescMessage } from "@bufbuild/protobuf";
import type { Route } from "../rest/route.ts";
import type { SsePlan } from "../rest/sse/plan.ts";
import { docOf } from "./proto-docs.ts";
import { defined, pascalCase, type Schema } from "./schema.ts";
import type { SchemaBook } from "./schema-book.ts";

/** The JSON of one event's `data:` line. */
export function eventSchema(route: Route & { kind: "stream" }, book: SchemaBook, error: Schema): Schema {
  const { sse, method } = route;
  if (!sse.flat || sse.oneof === undefined) return { anyOf: [book.ref(sse.dataDesc, "output"), error] };
  const union = `${method.name}Event`;
  const mapping: Record<string, string> = {};
  const members = sse.oneof.fields.map((member) => {
    const ref = book.define(union + pascalCase(member.name), flatMember(member, sse, book));
    mapping[member.name] = String(ref["$ref"]);
    return ref;
  });
  if (mapping[ERROR] === undefined) {
    const ref = book.define(`${union}Error`, withLateError(typed(ERROR, {}, [])));
    mapping[ERROR] = String(ref["$ref"]);
    members.push(ref);
  }
  return book.define(union, { oneOf: members, discriminator: { propertyName: "type", mapping } });
}

/** What the stream's events are called, for people. */
export function eventNames({ sse }: Route & { kind: "stream" }): readonly string[] {
  return [...new Set([...(sse.oneof?.fields.map(({ name }) => name) ?? []), ERROR])];
}

const ERROR = "error";

/** `{"type": member, …fields of the event, …fields of the member}`, as rest/sse/frame.ts writes it. */
function flatMember(member: DescField, sse: SsePlan, book: SchemaBook): Schema {
  const inner = member.message;
  const outer = fieldsOf(sse.dataDesc, book, new Set(sse.oneof?.fields));
  const own = inner === undefined ? NOTHING : fieldsOf(inner, book, new Set(), sse.embedded);
  const schema = typed(
    member.name,
    { ...outer.properties, ...own.properties },
    [...outer.required, ...own.required],
    docOf(member),
  );
  return member.name === ERROR ? withLateError(schema) : schema;
}

interface Fields {
  readonly properties: Schema;
  readonly required: readonly string[];
}

const NOTHING: Fields = { properties: {}, required: [] };

function fieldsOf(
  desc: DescMessage,
  book: SchemaBook,
  omit: ReadonlySet<DescField>,
  embedded?: SsePlan["embedded"],
): Fields {
  const { properties, required } = book.message(desc, "output", omit);
  const shown = desc.fields.filter((field) => !omit.has(field));
  const nameOf = (field: DescField) => embedded?.get(field) ?? field.name;
  const schemaOf = (field: DescField) =>
    embedded?.has(field) === true
      ? { description: "JSON; null for none, and text where the model wrote what is no JSON." }
      : ((properties as Schema)[field.name] ?? {});
  const always = new Set(Array.isArray(required) ? required : []);
  return {
    properties: Object.fromEntries(shown.map((field) => [nameOf(field), schemaOf(field)])),
    required: shown.filter(({ name }) => always.has(name)).map(nameOf),
  };
}

function typed(type: string, properties: Schema, required: readonly string[], description?: string): Schema {
  return defined({
    type: "object",
    description,
    properties: { type: { type: "string", const: type }, ...properties },
    required: ["type", ...required],
  });
}

/** An error that broke the stream has the event's name, too: without `seq`, and with details. */
function withLateError(schema: Schema): Schema {
  const text: Schema = { type: "string" };
  return {
    ...schema,
    description:
      "With `seq`: the run ended by a failure. Without `seq`: the stream broke and the run goes on; reconnect after the " +
      "last id.",
    properties: {
      code: text,
      reason: text,
      message: text,
      ...(schema["properties"] as Schema),
      details: { type: "array", items: { type: "object" } },
    },
    required: ["type", "code", "reason", "message"],
  };
}
