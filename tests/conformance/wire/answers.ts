import {
  createRegistry,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type JsonObject,
  type JsonValue,
  toJson,
} from "@bufbuild/protobuf";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { envelopes } from "./envelope.ts";
import { codeName, type Face, jsonOf } from "./faces.ts";
import type { WireAnswer } from "./h2-client.ts";

/** What a caller learns, the same whatever the face. */
export interface Answer {
  readonly httpStatus: number;
  /** `OK`, `NOT_FOUND`, …; `BROKEN` when no answer came, `LEFT` when the stream did not end in the time it was given. */
  readonly code: string;
  readonly reason: string;
  readonly message: string;
  readonly details: readonly JsonValue[];
  /** Messages of the answer, as JSON with proto names. */
  readonly messages: readonly JsonValue[];
  readonly headers: Readonly<Record<string, string>>;
}

const registry = createRegistry(file_google_rpc_error_details);

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly details: readonly JsonValue[];
}

/** Reads an answer of a face. */
export function answerOf(face: Face, method: DescMethod, wire: WireAnswer): Answer {
  const { messages, failure } = read(face, method, wire);
  const info = failure?.details.find(
    (detail): detail is JsonObject =>
      typeof detail === "object" && detail !== null && !Array.isArray(detail) && "reason" in detail,
  );
  const ending = wire.end === "whole" ? "OK" : wire.end === "left" ? "LEFT" : "BROKEN";
  return {
    httpStatus: wire.status,
    code: failure?.code ?? ending,
    reason: String(info?.["reason"] ?? ""),
    message: failure?.message ?? "",
    details: failure?.details ?? [],
    messages,
    headers: wire.headers,
  };
}

interface Read {
  messages: JsonValue[];
  failure?: Failure | undefined;
}

function read(face: Face, method: DescMethod, wire: WireAnswer): Read {
  if (wire.end === "broken") return { messages: [] };
  if (face === "grpc" || face === "grpc-web") return grpc(method.output, wire);
  if (face === "rest") return rest(wire);
  return method.methodKind === "unary" ? connectUnary(method.output, wire) : connectStream(method.output, wire);
}

function rest({ status, headers, body }: WireAnswer): Read {
  const text = body.toString();
  if (headers["content-type"]?.startsWith("text/event-stream") === true) {
    const events = text.split("\n").flatMap((line) => (line.startsWith("data: ") ? [parse(line.slice(6))] : []));
    return { messages: events };
  }
  const json = parse(text);
  if (status < 400) return { messages: [json] };
  const { error } = json as { error?: { status?: string; message?: string; details?: JsonValue[] } };
  const code = codeName(error?.status ?? `HTTP_${status}`);
  return { messages: [], failure: { code, message: error?.message ?? text, details: error?.details ?? [] } };
}

function connectUnary(output: DescMessage, { status, headers, body }: WireAnswer): Read {
  if (status === 200) {
    const json = headers["content-type"]?.includes("json") === true;
    return { messages: [json ? parse(body.toString()) : jsonOf(output, body)] };
  }
  const error = parse(body.toString());
  return { messages: [], failure: connectFailure(error, `HTTP_${status}`) };
}

function connectStream(output: DescMessage, { status, headers, body }: WireAnswer): Read {
  if (status !== 200) return { messages: [], failure: connectFailure(parse(body.toString()), `HTTP_${status}`) };
  const json = headers["content-type"]?.includes("json") === true;
  const messages: JsonValue[] = [];
  let failure: Failure | undefined;
  for (const { flags, data } of envelopes(body)) {
    if ((flags & 2) === 0) messages.push(json ? parse(data.toString()) : jsonOf(output, data));
    else failure = failureIn(parse(data.toString()));
  }
  return { messages, failure };
}

function failureIn(end: JsonValue): Failure | undefined {
  const { error } = end as { error?: JsonValue };
  return error === undefined ? undefined : connectFailure(error, "UNKNOWN");
}

function connectFailure(error: JsonValue, otherwise: string): Failure {
  const {
    code = otherwise,
    message = "",
    details = [],
  } = (error ?? {}) as {
    code?: string;
    message?: string;
    details?: { type: string; value: string }[];
  };
  return {
    code: codeName(code),
    message,
    details: details.map(({ type, value }) => detail(type, Buffer.from(value, "base64"))),
  };
}

function grpc(output: DescMessage, { status, headers, trailers, body }: WireAnswer): Read {
  const messages: JsonValue[] = [];
  let end: Readonly<Record<string, string>> = "grpc-status" in headers ? headers : trailers;
  for (const { flags, data } of envelopes(body)) {
    if ((flags & 0x80) === 0) messages.push(jsonOf(output, data));
    else end = trailersIn(data.toString());
  }
  const code = end["grpc-status"];
  if (code === undefined) {
    return status === 200 ? { messages } : { messages, failure: { code: `HTTP_${status}`, message: "", details: [] } };
  }
  if (code === "0") return { messages };
  const packed = end["grpc-status-details-bin"];
  const details =
    packed === undefined
      ? []
      : fromBinary(StatusSchema, Buffer.from(packed, "base64")).details.map(({ typeUrl, value }) =>
          detail(typeUrl.split("/").at(-1) ?? "", value),
        );
  const message = decodeURIComponent(end["grpc-message"] ?? "");
  return { messages, failure: { code: codeName(Number(code)), message, details } };
}

function trailersIn(text: string): Record<string, string> {
  return Object.fromEntries(
    text.split("\r\n").flatMap((line) => {
      const at = line.indexOf(":");
      return at < 0 ? [] : [[line.slice(0, at).trim().toLowerCase(), line.slice(at + 1).trim()]];
    }),
  );
}

function detail(type: string, value: Uint8Array): JsonValue {
  const desc = registry.getMessage(type);
  if (desc === undefined) return { type };
  const json = toJson(desc, fromBinary(desc, value), { useProtoFieldName: true }) as JsonObject;
  return { "@type": `type.googleapis.com/${type}`, ...json };
}

function parse(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return text;
  }
}
