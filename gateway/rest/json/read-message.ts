import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { Problems } from "../problems.ts";
import { Mismatch, readEnum, readScalar } from "./read-scalar.ts";
import { wellKnownReader } from "./read-well-known.ts";
import { isList, isObject, type Json, JsonNumber } from "./value.ts";

/** A singular field that the JSON text gave, with the fields on the way to it; `null` counts as given. */
export interface GivenField {
  readonly path: string;
  readonly fields: readonly DescField[];
  readonly isNull: boolean;
}

export interface ReadOptions {
  readonly problems: Problems;
  /** Other names that a message's fields are known under: from that name to the field's own. */
  aliases?(desc: DescMessage): ReadonlyMap<string, string> | undefined;
  /** Told of every field outside of lists and maps, deepest only; for update masks and collisions. */
  given?(field: GivenField): void;
}

interface Place {
  readonly path: string;
  /** Undefined inside of lists and maps. */
  readonly fields: readonly DescField[] | undefined;
}

const byName = new WeakMap<DescMessage, ReadonlyMap<string, DescField>>();

/** A field by its proto name or its JSON name. */
export function fieldNamed(desc: DescMessage, name: string): DescField | undefined {
  let names = byName.get(desc);
  if (names === undefined) {
    names = new Map(desc.fields.flatMap((field) => [[field.name, field] as const, [field.jsonName, field] as const]));
    byName.set(desc, names);
  }
  return names.get(name);
}

/**
 * Reads a JSON value into a message, as ProtoJSON has it, but strictly: an unknown name, a name given twice (also as
 * snake_case and camelCase) and a wrong type are problems that name the field's path. Says nothing of type names.
 */
export function readMessage(message: ReflectMessage, json: Json, options: ReadOptions, place: Place): void {
  if (!isObject(json)) {
    options.problems.add("FIELD_INVALID", place.path === "" ? "body" : place.path, "must be an object");
    return;
  }
  const aliases = options.aliases?.(message.desc);
  const seen = new Set<DescField>();
  for (const [name, value] of json) {
    if (options.problems.full) return;
    const canonical = aliases?.get(name);
    const field = fieldNamed(message.desc, canonical ?? name);
    const path = join(place.path, field?.name ?? name);
    if (field === undefined) {
      options.problems.add("FIELD_UNKNOWN", path, "no such field");
      continue;
    }
    // A resource that was read with an alias beside the field's own name may be sent back as it is.
    if (canonical !== undefined && (json.has(canonical) || json.has(field.jsonName))) continue;
    if (seen.has(field)) {
      options.problems.add("FIELD_CONFLICT", path, `is given twice, as ${field.name} and as ${field.jsonName}`);
      continue;
    }
    seen.add(field);
    readField(message, field, value, options, { path, fields: place.fields && [...place.fields, field] });
  }
}

function readField(message: ReflectMessage, field: DescField, json: Json, options: ReadOptions, place: Place): void {
  if (json === null && !takesNull(field)) {
    give(options, place, true);
    return;
  }
  if (field.oneof !== undefined) {
    const other = message.oneofCase(field.oneof);
    if (other !== undefined) {
      options.problems.add("FIELD_CONFLICT", place.path, `cannot be given together with ${other.name}`);
      return;
    }
  }
  switch (field.fieldKind) {
    case "list":
      give(options, place, false);
      return void readList(message, field, json, options, place.path);
    case "map":
      give(options, place, false);
      return void readMap(message, field, json, options, place.path);
    default: {
      const value = readValue(field, json, options, place);
      if (value !== undefined) message.set(field, value);
    }
  }
}

type ValueField = DescField & { fieldKind: "scalar" | "enum" | "message" };
type ListField = DescField & { fieldKind: "list" };
type MapField = DescField & { fieldKind: "map" };

/** The value in the form that the reflection API takes; undefined when it was a problem. null comes for a NullValue only. */
function readValue(field: ValueField | ListField | MapField, json: Json, options: ReadOptions, place: Place): unknown {
  if (field.message !== undefined) return readMessageValue(field.message, json, options, place);
  give(options, place, false);
  if (json === null) return 0;
  const value =
    field.enum === undefined ? readScalar(field.scalar ?? ScalarType.STRING, json) : readEnum(field.enum, json);
  return value instanceof Mismatch ? refuse(options, place.path, value) : value;
}

function readMessageValue(
  desc: DescMessage,
  json: Json,
  options: ReadOptions,
  place: Place,
): ReflectMessage | undefined {
  const readKnown = wellKnownReader(desc);
  if (readKnown !== undefined) {
    give(options, place, false);
    const value = readKnown(desc, json);
    return value instanceof Mismatch ? refuse(options, place.path, value) : reflect(desc, value);
  }
  if (isObject(json) && json.size === 0) give(options, place, false);
  const message = reflect(desc);
  readMessage(message, json, options, place);
  return message;
}

function readList(message: ReflectMessage, field: ListField, json: Json, options: ReadOptions, path: string): void {
  if (!isList(json)) return void refuse(options, path, new Mismatch("a list"));
  const list = message.get(field);
  for (const [index, item] of json.entries()) {
    if (options.problems.full) return;
    const value = readElement(field, item, options, `${path}[${index}]`);
    if (value !== undefined) list.add(value);
  }
}

function readMap(message: ReflectMessage, field: MapField, json: Json, options: ReadOptions, path: string): void {
  if (!isObject(json)) return void refuse(options, path, new Mismatch("an object"));
  const map = message.get(field);
  for (const [name, item] of json) {
    if (options.problems.full) return;
    const at = `${path}[${JSON.stringify(name)}]`;
    const key = readScalar(field.mapKey, field.mapKey === ScalarType.BOOL ? (BOOLEANS.get(name) ?? name) : name);
    if (key instanceof Mismatch) {
      options.problems.add("FIELD_INVALID", at, `the name must be ${key.expected}`);
      continue;
    }
    const value = readElement(field, item, options, at);
    if (value !== undefined) map.set(key, value);
  }
}

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ["true", true],
  ["false", false],
]);

function readElement(field: ListField | MapField, json: Json, options: ReadOptions, path: string): unknown {
  if (json === null && !takesNull(field)) return refuse(options, path, new Mismatch("a value, not null"));
  return readValue(field, json, options, { path, fields: undefined });
}

function refuse(options: ReadOptions, path: string, mismatch: Mismatch): undefined {
  options.problems.add("FIELD_INVALID", path, `must be ${mismatch.expected}`);
}

function give(options: ReadOptions, place: Place, isNull: boolean): void {
  if (place.fields !== undefined) options.given?.({ path: place.path, fields: place.fields, isNull });
}

/** In ProtoJSON null means "not given", except where null is a value. */
function takesNull(field: DescField): boolean {
  return field.message?.typeName === "google.protobuf.Value" || field.enum?.typeName === "google.protobuf.NullValue";
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

/** Text from a path or a query as the JSON value that the field would have been given as. */
export function textAsJson(field: DescField, text: string): Json {
  const scalar = field.scalar ?? field.message?.fields.find(({ name }) => name === "value")?.scalar;
  if (scalar === ScalarType.BOOL) return BOOLEANS.get(text) ?? text;
  if (field.enum !== undefined && /^-?[0-9]{1,10}$/.test(text)) return new JsonNumber(text);
  return text;
}
