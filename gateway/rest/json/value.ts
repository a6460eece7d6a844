/** A JSON number as it was written, so that 64-bit integers keep every digit. */
export class JsonNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** Members in the order in which they were written. A Map, so that `__proto__` is a key like any other. */
export type JsonObject = ReadonlyMap<string, Json>;

/** A JSON value (RFC 8259) without loss. */
export type Json = null | boolean | string | JsonNumber | JsonObject | readonly Json[];

export function isObject(json: Json): json is JsonObject {
  return json instanceof Map;
}

export function isList(json: Json): json is readonly Json[] {
  return Array.isArray(json);
}

/** Writes a value on one line; numbers as they were read. */
export function printJson(json: Json): string {
  if (json instanceof JsonNumber) return json.text;
  if (isObject(json)) {
    return `{${[...json].map(([key, value]) => `${JSON.stringify(key)}:${printJson(value)}`).join(",")}}`;
  }
  return isList(json) ? `[${json.map(printJson).join(",")}]` : JSON.stringify(json);
}
