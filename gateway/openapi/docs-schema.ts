import type { JsonValue } from "@bufbuild/protobuf";
import { type Html, type HtmlValue, html, inline, prose } from "./html.ts";
import type { Schema } from "./schema.ts";

const PREFIX = "#/components/schemas/";

/** The last part of a reference. */
export function nameOfRef(ref: JsonValue | undefined): string {
  return (
    String(ref ?? "")
      .split("/")
      .at(-1) ?? ""
  );
}

/** Members of an object of the document, none for anything else. */
export function members(value: JsonValue | undefined): [string, Schema][] {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (Object.entries(value) as [string, Schema][])
    : [];
}

export function items(value: JsonValue | undefined): Schema[] {
  return Array.isArray(value) ? (value as Schema[]) : [];
}

export function text(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** A component in full. */
export function componentHtml(name: string, schema: Schema): Html {
  return html`<details id="schema-${name}"><summary><code>${name}</code></summary>${schemaHtml(schema)}</details>`;
}

/** A schema: its text and its fields, or what it is. */
export function schemaHtml(schema: Schema): Html {
  const required = new Set(Array.isArray(schema["required"]) ? schema["required"] : []);
  const rows = members(schema["properties"]).map(
    ([name, property]) => html`<tr><td><code>${name}</code>${required.has(name) ? html` <em>required</em>` : ""}</td>
<td>${typeHtml(property)}</td><td>${inline(text(property["description"]) ?? "")}${notes(property)}</td></tr>`,
  );
  const table = rows.length === 0 ? html`<p>${typeHtml(schema)}</p>` : html`<table>${rows}</table>`;
  return html`${prose(text(schema["description"]))}${table}`;
}

/** A type in a few words, with links to components. */
export function typeHtml(schema: Schema): HtmlValue {
  const ref = text(schema["$ref"]);
  if (ref?.startsWith(PREFIX) === true) return html`<a href="#schema-${nameOfRef(ref)}">${nameOfRef(ref)}</a>`;
  const choices = items(schema["anyOf"] ?? schema["oneOf"]);
  if (choices.length > 0) return choices.map((one, index) => [index === 0 ? "" : " or ", typeHtml(one)]);
  if (schema["const"] !== undefined) return html`<code>${JSON.stringify(schema["const"])}</code>`;
  const { type, format } = schema;
  const types = Array.isArray(type) ? type.join(" or ") : (text(type) ?? "any");
  if (type === "array" || (Array.isArray(type) && type.includes("array"))) {
    return ["list of ", typeHtml((schema["items"] as Schema | undefined) ?? {})];
  }
  if (typeof schema["additionalProperties"] === "object") {
    return ["map to ", typeHtml(schema["additionalProperties"] as Schema)];
  }
  return format === undefined ? types : `${types} (${String(format)})`;
}

const LIMITS: Readonly<Record<string, string>> = {
  minLength: "at least %s characters",
  maxLength: "at most %s characters",
  minimum: "at least %s",
  maximum: "at most %s",
  exclusiveMinimum: "more than %s",
  exclusiveMaximum: "less than %s",
  minItems: "at least %s items",
  maxItems: "at most %s items",
  maxProperties: "at most %s entries",
  pattern: "like %s",
};

function notes(schema: Schema): HtmlValue {
  const found = Object.entries(LIMITS).flatMap(([keyword, phrase]) =>
    schema[keyword] === undefined ? [] : [phrase.replace("%s", String(schema[keyword]))],
  );
  if (schema["readOnly"] === true) found.push("read only");
  if (schema["deprecated"] === true) found.push("deprecated");
  return found.length === 0 ? "" : html` <small>${found.join(", ")}</small>`;
}
