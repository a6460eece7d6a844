import type { JsonValue, Message } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { PASSED_HEADERS } from "../pass-through.ts";
import type { Aliases } from "./document-aliases.ts";
import { fieldNamed } from "./json/read-message.ts";
import type { MessageWriter } from "./json/write-message.ts";
import type { Route } from "./route.ts";

/** The JSON and the headers of a unary method's answer. */
export function unaryAnswer(
  { method, responseBody }: Route,
  response: { readonly message: Message; readonly header: Headers },
  writer: MessageWriter,
  aliases: Aliases,
): { json: JsonValue; headers: Record<string, string> } {
  const message = reflect(method.output, response.message, false);
  const headers = passedHeaders(response.header);
  if (responseBody === undefined) {
    const more = aliases.answer(method);
    const json = writer.write(method.output, response.message);
    return { json: more === undefined ? json : { ...(json as object), ...more }, headers };
  }
  const absent = responseBody.fieldKind === "message" && !message.isSet(responseBody);
  const etag =
    absent || responseBody.fieldKind !== "message"
      ? undefined
      : etagOf(message.get(responseBody).message, responseBody.message);
  return {
    json: absent ? null : writer.field(message, responseBody),
    headers: etag === undefined ? headers : { ...headers, etag },
  };
}

export function passedHeaders(from: Headers): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const name of PASSED_HEADERS) {
    const value = from.get(name);
    if (value !== null) headers[name] = value;
  }
  return headers;
}

/** RFC 9110 §8.8.3; what cannot be written between quotes is not shown. */
function etagOf(message: Message, desc: Route["method"]["output"]): string | undefined {
  const field = fieldNamed(desc, "etag");
  if (field?.fieldKind !== "scalar") return undefined;
  const etag = String(reflect(desc, message, false).get(field));
  return /^[\x21\x23-\x7e]+$/.test(etag) ? `"${etag}"` : undefined;
}
