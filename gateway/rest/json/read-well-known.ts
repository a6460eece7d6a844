import { create, type DescMessage, fromJson, type JsonValue, type Message } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { Mismatch, readScalar } from "./read-scalar.ts";
import { isList, isObject, type Json, JsonNumber } from "./value.ts";

/** Reads one well-known type from the JSON form that ProtoJSON gives it. */
type Reader = (desc: DescMessage, json: Json) => Message | Mismatch;

/** The readers by type name; undefined for an ordinary message. */
export function wellKnownReader(desc: DescMessage): Reader | undefined {
  const reader = READERS.get(desc.typeName);
  if (reader !== undefined) return reader;
  return WRAPPERS.has(desc.typeName) ? readWrapper : undefined;
}

/** True for the wrapper types of google/protobuf/wrappers.proto. */
export function isWrapper(desc: DescMessage): boolean {
  return WRAPPERS.has(desc.typeName);
}

const WRAPPERS: ReadonlySet<string> = new Set(
  ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"].map(
    (name) => `google.protobuf.${name}Value`,
  ),
);

const FINITE_OBJECT = "an object with finite numbers";
const FINITE_LIST = "a list with finite numbers";

const READERS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  ["google.protobuf.Timestamp", textReader("a time such as 2026-01-31T12:00:00Z")],
  ["google.protobuf.Duration", textReader("a duration in seconds such as 1.5s")],
  ["google.protobuf.FieldMask", readFieldMask],
  [
    "google.protobuf.Struct",
    (desc, json) => (isObject(json) ? viaLibrary(desc, json, FINITE_OBJECT) : new Mismatch(FINITE_OBJECT)),
  ],
  [
    "google.protobuf.ListValue",
    (desc, json) => (isList(json) ? viaLibrary(desc, json, FINITE_LIST) : new Mismatch(FINITE_LIST)),
  ],
  ["google.protobuf.Value", (desc, json) => viaLibrary(desc, json, "a JSON value with finite numbers")],
  ["google.protobuf.Any", () => new Mismatch("absent: this kind of field cannot be given over REST")],
]);

function textReader(expected: string): Reader {
  return (desc, json) => (typeof json === "string" ? viaLibrary(desc, json, expected) : new Mismatch(expected));
}

function readWrapper(desc: DescMessage, json: Json): Message | Mismatch {
  const [field] = desc.fields;
  if (field?.fieldKind !== "scalar") return new Mismatch("absent");
  const value = readScalar(field.scalar, json);
  return value instanceof Mismatch ? value : (create(desc, { [field.localName]: value }) as Message);
}

/** ProtoJSON writes masks in camelCase; REST callers know the snake_case names. Both are taken, snake_case is kept. */
function readFieldMask(_desc: DescMessage, json: Json): Message | Mismatch {
  if (typeof json !== "string" || !/^[A-Za-z0-9_.,*]*$/.test(json)) {
    return new Mismatch("field names separated by commas, such as title,labels");
  }
  const paths = json.split(",").filter((path) => path !== "");
  return create(FieldMaskSchema, { paths: paths.map(snakeCase) });
}

function snakeCase(path: string): string {
  return path.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function viaLibrary(desc: DescMessage, json: Json, expected: string): Message | Mismatch {
  try {
    return fromJson(desc, plain(json));
  } catch {
    return new Mismatch(expected);
  }
}

/** google.protobuf.Value has no infinities, and a number beyond the doubles would become one. */
function finite({ text }: JsonNumber): number {
  const number = Number(text);
  if (!Number.isFinite(number)) throw new RangeError("not finite");
  return number;
}

/** The value as JavaScript has it; numbers become doubles, as in google.protobuf.Struct itself. */
function plain(json: Json): JsonValue {
  if (json instanceof JsonNumber) return finite(json);
  if (isObject(json)) return Object.fromEntries([...json].map(([key, value]) => [key, plain(value)]));
  return isList(json) ? json.map(plain) : json;
}
