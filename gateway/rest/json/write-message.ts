import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromBinary,
  type JsonValue,
  type Message,
  type Registry,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import {
  type Any,
  FeatureSet_FieldPresence,
  type FieldMask,
  type ListValue,
  type Struct,
  type Value,
} from "@bufbuild/protobuf/wkt";
import { isWrapper } from "./read-well-known.ts";

/** A JSON object under construction; without a prototype, so that `__proto__` is a key like any other. */
export type JsonFields = Record<string, JsonValue>;

/**
 * Writes messages as ProtoJSON with snake_case names and all fields without presence, as `useProtoFieldName` and
 * `alwaysEmitImplicit` do; inside of an Any (error details) empty fields are left out. Unlike the library's writer it shows field masks in snake_case, and an Any of a type that this
 * gateway does not know (a newer service sent it) as base64 instead of failing.
 */
export class MessageWriter {
  readonly #types: Registry;
  readonly #aliases: (desc: DescMessage) => ReadonlyMap<string, string> | undefined;
  #sparse = false;

  /**
   * @param types the messages that may be inside of google.protobuf.Any
   * @param aliases names under which fields are shown once more: from that name to the field's own
   */
  constructor(
    types: Registry,
    aliases: (desc: DescMessage) => ReadonlyMap<string, string> | undefined = () => undefined,
  ) {
    this.#types = types;
    this.#aliases = aliases;
  }

  write(desc: DescMessage, message: Message): JsonValue {
    switch (desc.typeName) {
      case "google.protobuf.Any":
        return this.any(message as Any);
      case "google.protobuf.FieldMask":
        return (message as FieldMask).paths.join(",");
      case "google.protobuf.Timestamp":
      case "google.protobuf.Duration":
        return timeToJson(desc, message);
      case "google.protobuf.Struct":
        return structToJson(message as Struct);
      case "google.protobuf.Value":
        return valueToJson(message as Value);
      case "google.protobuf.ListValue":
        return (message as ListValue).values.map(valueToJson);
      default:
        return isWrapper(desc) ? toJson(desc, message) : this.fields(desc, message);
    }
  }

  /** The fields of an ordinary message, in the order of its definition. */
  fields(desc: DescMessage, message: Message, omit?: DescField): JsonFields {
    const json: JsonFields = Object.create(null);
    const reflected = reflect(desc, message, false);
    for (const field of desc.fields) {
      if (field === omit) continue;
      if (
        field.oneof !== undefined
          ? reflected.oneofCase(field.oneof) !== field
          : !isShown(reflected, field, this.#sparse)
      )
        continue;
      json[field.name] = this.field(reflected, field);
    }
    for (const [alias, name] of this.#aliases(desc) ?? []) {
      const value = json[name];
      if (value !== undefined) json[alias] = value;
    }
    return json;
  }

  /** One field's value, or its default. */
  field(message: ReflectMessage, field: DescField): JsonValue {
    switch (field.fieldKind) {
      case "list": {
        const items: JsonValue[] = [];
        for (const item of message.get(field)) items.push(this.#value(field, item));
        return items;
      }
      case "map": {
        const entries: JsonFields = Object.create(null);
        for (const [key, value] of message.get(field)) entries[String(key)] = this.#value(field, value);
        return entries;
      }
      default:
        return this.#value(field, message.get(field));
    }
  }

  /** google.rpc details and the like: the fields beside `@type`. */
  any({ typeUrl, value }: Pick<Any, "typeUrl" | "value">): JsonValue {
    const opaque = { "@type": typeUrl, value: Buffer.from(value).toString("base64") };
    const desc = this.#types.getMessage(typeUrl.slice(typeUrl.lastIndexOf("/") + 1));
    const message = desc && decoded(desc, value);
    if (desc === undefined || message === undefined) return opaque;
    const json = this.#inside().write(desc, message);
    const isPlain = typeof json === "object" && json !== null && !Array.isArray(json);
    return isPlain ? { "@type": typeUrl, ...json } : { "@type": typeUrl, value: json };
  }

  #inside(): MessageWriter {
    if (this.#sparse) return this;
    const inside = new MessageWriter(this.#types, this.#aliases);
    inside.#sparse = true;
    return inside;
  }

  #value(field: DescField, value: unknown): JsonValue {
    if (field.message !== undefined) return this.write(field.message, (value as ReflectMessage).message);
    return field.enum === undefined ? scalarToJson(field.scalar, value) : enumToJson(field.enum, value as number);
  }
}

function decoded(desc: DescMessage, value: Uint8Array): Message | undefined {
  try {
    return fromBinary(desc, value);
  } catch {
    return undefined;
  }
}

/** Outside of the years 1 to 9999 there is no JSON form; one odd value must not cost the whole answer. */
function timeToJson(desc: DescMessage, message: Message): JsonValue {
  try {
    return toJson(desc, message);
  } catch {
    return null;
  }
}

function structToJson({ fields }: Struct): JsonFields {
  const json: JsonFields = Object.create(null);
  for (const [name, value] of Object.entries(fields)) json[name] = valueToJson(value);
  return json;
}

/** As ProtoJSON, but a number that is not finite (a binary client sent it) is text instead of an error. */
function valueToJson({ kind }: Value): JsonValue {
  switch (kind.case) {
    case "structValue":
      return structToJson(kind.value);
    case "listValue":
      return kind.value.values.map(valueToJson);
    case "numberValue":
      return Number.isFinite(kind.value) ? kind.value : String(kind.value);
    case "stringValue":
    case "boolValue":
      return kind.value;
    default:
      return null;
  }
}

function isShown(message: ReflectMessage, field: DescField, sparse: boolean): boolean {
  const hasPresence =
    sparse ||
    field.fieldKind === "message" ||
    (field.presence !== FeatureSet_FieldPresence.IMPLICIT && isSingular(field));
  return !hasPresence || message.isSet(field);
}

function isSingular(field: DescField): boolean {
  return field.fieldKind === "scalar" || field.fieldKind === "enum";
}

function enumToJson(desc: DescEnum, number: number): JsonValue {
  if (desc.typeName === "google.protobuf.NullValue") return null;
  return desc.value[number]?.name ?? number;
}

function scalarToJson(type: ScalarType | undefined, value: unknown): JsonValue {
  switch (type) {
    case ScalarType.BYTES:
      return Buffer.from(value as Uint8Array).toString("base64");
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      return Number.isFinite(value) ? (value as number) : String(value);
    default:
      return typeof value === "bigint" ? value.toString() : (value as JsonValue);
  }
}
