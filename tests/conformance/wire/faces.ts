import {
  create,
  createRegistry,
  type DescMessage,
  type DescMethod,
  fromBinary,
  fromJson,
  type JsonObject,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { envelope } from "./envelope.ts";
import type { WireRequest } from "./h2-client.ts";
import { restRoute } from "./methods.ts";
import { restRequest } from "./rest-request.ts";

/** The ways to say the same thing to the mesh. */
export const FACES = ["rest", "connect-json", "connect-binary", "grpc", "grpc-web"] as const;
export type Face = (typeof FACES)[number];

/** What a face sends of a message: JSON text, or the bytes of protobuf. */
export function isJson(face: Face): boolean {
  return face === "rest" || face === "connect-json";
}

/** A request of a method over a face; undefined when the face cannot say it. */
export function requestOf(
  face: Face,
  method: DescMethod,
  message: Message,
  headers: Record<string, string>,
): WireRequest | undefined {
  if (!isJson(face)) return binaryRequest(face, method, toBinary(method.input, message), headers);
  return jsonRequest(face, method, toJson(method.input, message, { useProtoFieldName: true }) as JsonObject, headers);
}

/** A request with any JSON object in place of the message. */
export function jsonRequest(
  face: Face,
  method: DescMethod,
  json: JsonObject,
  headers: Record<string, string>,
): WireRequest | undefined {
  if (face === "rest") {
    const route = restRoute(method);
    const request = route && restRequest(route, json);
    if (request === undefined) return undefined;
    const type = request.body === undefined ? {} : { "content-type": "application/json" };
    return {
      verb: request.verb,
      path: request.path,
      headers: { ...type, ...headers },
      body: request.body === undefined ? undefined : Buffer.from(request.body),
    };
  }
  const bytes = Buffer.from(JSON.stringify(json));
  return connectRequest(method, "json", bytes, headers);
}

/** A request with any bytes in place of the message. */
export function binaryRequest(
  face: Face,
  method: DescMethod,
  bytes: Uint8Array,
  headers: Record<string, string>,
): WireRequest {
  if (face === "connect-binary") return connectRequest(method, "proto", bytes, headers);
  const type: Record<string, string> =
    face === "grpc-web"
      ? { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" }
      : { "content-type": "application/grpc+proto", te: "trailers" };
  return { verb: "POST", path: pathOf(method), headers: { ...type, ...headers }, body: envelope(bytes) };
}

function connectRequest(
  method: DescMethod,
  codec: "json" | "proto",
  bytes: Uint8Array,
  headers: Record<string, string>,
): WireRequest {
  const unary = method.methodKind === "unary";
  const type = unary ? `application/${codec}` : `application/connect+${codec}`;
  return {
    verb: "POST",
    path: pathOf(method),
    headers: { "content-type": type, "connect-protocol-version": "1", ...headers },
    body: unary ? bytes : envelope(bytes),
  };
}

export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** A message from its JSON, with unknown members refused: fixtures are written this way. */
export function messageOf(desc: DescMessage, json: JsonObject): Message {
  return json === undefined ? create(desc) : fromJson(desc, json);
}

/** What the error of a run may hold. */
const registry = createRegistry(file_google_rpc_error_details);

/** A message of the wire as JSON. */
export function jsonOf(desc: DescMessage, bytes: Uint8Array): JsonObject {
  return toJson(desc, fromBinary(desc, bytes), { useProtoFieldName: true, registry }) as JsonObject;
}

/** `NOT_FOUND` for Connect's `not_found`, gRPC's 5 and google.rpc's `NOT_FOUND`. */
export function codeName(code: string | number): string {
  if (typeof code === "string") return code.toUpperCase().replace("CANCELLED", "CANCELED");
  if (code === 0) return "OK";
  return (Code[code] ?? String(code)).replaceAll(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}
