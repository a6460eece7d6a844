import { type DescMessage, ScalarType } from "@bufbuild/protobuf";
import type { Schema } from "./schema.ts";

/**
 * Which way a value goes, and how: `output` in answers, `sparse` in the details of errors, whose empty fields are left
 * out, `input` in bodies, `text` in paths, queries and headers. They differ because reading is more lenient than writing:
 * bodies may have 64-bit integers as numbers and null for "not given".
 */
export type Direction = "output" | "sparse" | "input" | "text";

/** True for what the server writes. */
export function isAnswer(direction: Direction): boolean {
  return direction === "output" || direction === "sparse";
}

const INT64 = "^-?[0-9]+$";

/** A scalar as ProtoJSON has it. */
export function scalarSchema(type: ScalarType, direction: Direction): Schema {
  switch (type) {
    case ScalarType.STRING:
      return { type: "string" };
    case ScalarType.BOOL:
      return { type: "boolean" };
    case ScalarType.BYTES:
      return { type: "string", contentEncoding: "base64" };
    case ScalarType.DOUBLE:
      return { type: "number", format: "double" };
    case ScalarType.FLOAT:
      return { type: "number", format: "float" };
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { type: "integer", format: "int32" };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: "integer", format: "int64", minimum: 0, maximum: 4_294_967_295 };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return wide("uint64", direction);
    default:
      return wide("int64", direction);
  }
}

function wide(format: string, direction: Direction): Schema {
  if (direction === "text") return { type: "integer", format };
  if (direction === "input") return { type: ["string", "integer"], format, pattern: INT64 };
  return { type: "string", format, pattern: INT64 };
}

const DURATION = "^-?[0-9]+(\\.[0-9]{1,9})?s$";

const WELL_KNOWN: Readonly<Record<string, Schema>> = {
  "google.protobuf.Timestamp": { type: "string", format: "date-time" },
  "google.protobuf.Duration": { type: "string", pattern: DURATION, examples: ["1.5s"] },
  "google.protobuf.FieldMask": { type: "string", examples: ["title,labels"] },
  "google.protobuf.Struct": { type: "object", additionalProperties: true },
  "google.protobuf.Value": {},
  "google.protobuf.ListValue": { type: "array", items: {} },
  "google.protobuf.Any": {
    type: "object",
    properties: { "@type": { type: "string" } },
    required: ["@type"],
    additionalProperties: true,
  },
};

/** The JSON form of a well-known type; undefined for an ordinary message. */
export function wellKnownSchema(desc: DescMessage, direction: Direction): Schema | undefined {
  const known = WELL_KNOWN[desc.typeName];
  if (known !== undefined) return known;
  const wrapped = /^google\.protobuf\.\w+Value$/.test(desc.typeName) ? desc.field["value"]?.scalar : undefined;
  return wrapped === undefined ? undefined : scalarSchema(wrapped, direction);
}
