import { type DescField, type DescMessage, type JsonObject, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import { anyDouble, anyLong, anyNumber, anyText, type Known, tooMuch } from "./fuzz-values.ts";
import type { Random } from "./random.ts";

const WRONG: readonly JsonValue[] = [null, true, 7, -1.5, "text", [], {}, [[]], [null], { a: { b: [] } }, "NaN", 1e300];

/** A request as JSON that may be anything: right, at a limit, of a wrong type, too large, with unknown members. */
export function fuzzJson(desc: DescMessage, random: Random, known: Known, how: JsonFlaw): JsonObject {
  const object = messageJson(desc, random, known, 0);
  const names = Object.keys(object);
  const victim = names.length > 0 ? random.pick(names) : "";
  if (how === "wrong-type" && victim !== "") object[victim] = random.pick(WRONG);
  if (how === "unknown")
    object[random.pick(["__proto__x", "constructor", "sesion_id", "a.b", "", "😀"])] = random.pick(WRONG);
  if (how === "oversize" && victim !== "") object[victim] = "x".repeat(tooMuch(random));
  return object;
}

export const JSON_FLAWS = ["none", "none", "none", "wrong-type", "wrong-type", "unknown", "oversize"] as const;
export type JsonFlaw = (typeof JSON_FLAWS)[number];

/** Text in place of JSON. */
export function brokenJson(json: JsonObject, random: Random): Buffer {
  const text = Buffer.from(JSON.stringify(json));
  const at = random.below(text.length + 1);
  switch (random.below(5)) {
    case 0:
      return text.subarray(0, at);
    case 1:
      return Buffer.concat([text, Buffer.from("]")]);
    case 2:
      return Buffer.concat([text.subarray(0, at), Buffer.of(random.below(256)), text.subarray(at)]);
    case 3:
      return Buffer.from("[".repeat(random.pick([1, 70, 5_000])));
    default:
      return Buffer.concat([Buffer.of(0xef, 0xbb, 0xbf), text]);
  }
}

function messageJson(desc: DescMessage, random: Random, known: Known, depth: number): JsonObject {
  const object: JsonObject = {};
  for (const field of desc.fields) {
    if (!random.chance(depth === 0 ? 0.75 : 0.35)) continue;
    if (field.oneof !== undefined && desc.oneofs.length > 0 && !random.chance(0.5)) continue;
    const value = fieldJson(field, random, known, depth);
    if (value !== undefined) object[random.chance(0.9) ? field.name : field.jsonName] = value;
  }
  return object;
}

function fieldJson(field: DescField, random: Random, known: Known, depth: number): JsonValue | undefined {
  if (field.fieldKind === "list") {
    const item = () => elementJson(field, random, known, depth);
    return Array.from({ length: random.pick([0, 1, 2, 3, 65]) }, item).filter((one) => one !== undefined);
  }
  if (field.fieldKind === "map") {
    const entries = Array.from({ length: random.pick([0, 1, 3, 33]) }, () => [
      anyText(random, "key", known),
      anyText(random, "value", known),
    ]);
    return Object.fromEntries(entries) as JsonObject;
  }
  return elementJson(field, random, known, depth);
}

function elementJson(field: DescField, random: Random, known: Known, depth: number): JsonValue | undefined {
  if (field.message !== undefined) return nestedJson(field.message, random, known, depth);
  if (field.enum !== undefined) {
    const names = field.enum.values.map(({ name }) => name);
    return random.chance(0.8) ? random.pick(names) : random.pick(["NOPE", 99, -1]);
  }
  return scalarJson(field.scalar ?? ScalarType.STRING, field.name, random, known);
}

function nestedJson(desc: DescMessage, random: Random, known: Known, depth: number): JsonValue | undefined {
  switch (desc.typeName) {
    case "google.protobuf.Struct":
      return random.pick<JsonValue>([{}, { a: 1 }, { a: { b: [1, null, "x"] } }, { "": "" }, { n: 1e300 }]);
    case "google.protobuf.Timestamp":
      return random.pick(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "later"]);
    case "google.protobuf.Duration":
      return random.pick(["1s", "60.5s", "0s", "-1s", "315576000000s", "1h", ""]);
    case "google.protobuf.FieldMask":
      return random.pick(["title", "*", "name,name", "etag", "no.such", "", "labels,title", "tools"]);
    default:
      return depth < 3 ? messageJson(desc, random, known, depth + 1) : undefined;
  }
}

function scalarJson(scalar: ScalarType, name: string, random: Random, known: Known): JsonValue {
  switch (scalar) {
    case ScalarType.STRING:
      return anyText(random, name, known);
    case ScalarType.BYTES:
      return Buffer.from(anyText(random, name, known)).toString("base64");
    case ScalarType.BOOL:
      return random.chance(0.5);
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT: {
      const value = anyDouble(random);
      return Number.isFinite(value) ? value : String(value);
    }
    case ScalarType.INT64:
    case ScalarType.UINT64:
    case ScalarType.SINT64:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return String(anyLong(random));
    default:
      return anyNumber(random);
  }
}
