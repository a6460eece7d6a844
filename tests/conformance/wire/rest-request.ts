import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { RestRoute } from "./methods.ts";

/** What goes over the wire for a request. */
export interface RestRequest {
  readonly verb: string;
  readonly path: string;
  readonly body: string | undefined;
}

/**
 * A request message, as JSON with proto names, as the route's method, path, query and body. Undefined when the message
 * has no value for a variable of the path: such a request cannot be written.
 */
export function restRequest({ verb, template, body }: RestRoute, message: JsonObject): RestRequest | undefined {
  const rest = structuredClone(message);
  let missing = false;
  const path = template.replaceAll(/\{([\w.]+)(?:=[^}]*)?\}/g, (_, variable: string) => {
    const value = take(rest, variable.split("."));
    if (typeof value !== "string" || value === "") missing = true;
    return encodeURIComponent(String(value));
  });
  if (missing) return undefined;
  if (body === "*") return { verb, path, body: JSON.stringify(rest) };
  const sent = body === "" ? undefined : JSON.stringify(rest[body] ?? {});
  if (body !== "") delete rest[body];
  const query = new URLSearchParams(queryOf(rest)).toString();
  return { verb, path: query === "" ? path : `${path}?${query}`, body: sent };
}

function take(object: JsonObject, path: readonly string[]): JsonValue | undefined {
  const [first = "", ...rest] = path;
  if (rest.length > 0) {
    const inner = object[first];
    return typeof inner === "object" && inner !== null && !Array.isArray(inner) ? take(inner, rest) : undefined;
  }
  const value = object[first];
  delete object[first];
  return value;
}

function queryOf(object: JsonObject, prefix = ""): [string, string][] {
  return Object.entries(object).flatMap(([name, value]): [string, string][] => {
    if (Array.isArray(value)) return value.map((item) => [`${prefix}${name}`, text(item)]);
    if (typeof value === "object" && value !== null) return queryOf(value, `${prefix}${name}.`);
    return [[`${prefix}${name}`, text(value)]];
  });
}

function text(value: JsonValue): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
