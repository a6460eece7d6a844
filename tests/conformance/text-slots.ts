import {
  type DescField,
  type DescMessage,
  getOption,
  type JsonObject,
  type JsonValue,
  ScalarType,
} from "@bufbuild/protobuf";
import { FieldBehavior, field_behavior } from "#gen/google/api/field_behavior_pb.ts";
import { type MeshMethod, meshMethods } from "./wire/methods.ts";

/** A place for a text in a resource: a field, an item of a list, a key or a value of a map or of a Struct. */
export interface TextSlot {
  /** `labels{}` is a value of that map, `labels{key}` a key. */
  readonly name: string;
  /** Of the resource; what a violation names begins with it. */
  readonly field: string;
  put(resource: JsonObject, text: string): void;
  /** What stands there; of a key, the text when it is one. */
  take(resource: JsonObject, text: string): unknown;
}

/** A resource that can be made and read again. */
export interface Pair {
  readonly create: MeshMethod;
  readonly get: MeshMethod;
  /** Name of the resource in both messages, and of its id. */
  readonly resource: string;
  readonly slots: readonly TextSlot[];
}

/** The create and get methods of every public resource, with all places for text that a caller sets and reads again. */
export function createAndGet(): Pair[] {
  const methods = meshMethods().filter((method) => method.public);
  return methods.flatMap((create) => {
    const { parent, name, input } = create.method;
    const get = methods.find(
      ({ method }) => method.parent === parent && method.name === name.replace(/^Create/, "Get"),
    );
    const field = input.fields.find(({ fieldKind }) => fieldKind === "message");
    if (!name.startsWith("Create") || get === undefined || field?.message === undefined) return [];
    return [{ create, get, resource: field.name, slots: slotsOf(field.message) }];
  });
}

/** A key that every map takes; the one of canned answers takes languages only. */
const KEY = "en";

function slotsOf(desc: DescMessage): TextSlot[] {
  return desc.fields.filter(isCallersOwn).flatMap((field) => slotsOfField(field));
}

/** Not what the server sets, and no reference to what has to exist. */
function isCallersOwn(field: DescField): boolean {
  if (getOption(field, field_behavior).includes(FieldBehavior.OUTPUT_ONLY)) return false;
  return !/^(etag|tenant_id|agent_id|session_id|api_key_id)$/.test(field.name);
}

function slotsOfField(field: DescField): TextSlot[] {
  const { name } = field;
  const slot = (suffix: string, put: TextSlot["put"], take: TextSlot["take"]): TextSlot => ({
    name: name + suffix,
    field: name,
    put,
    take,
  });
  if (field.fieldKind === "map" || (field.fieldKind === "message" && isStruct(field))) {
    const entries = (resource: JsonObject) => (resource[name] ?? {}) as JsonObject;
    const put = (resource: JsonObject, more: JsonObject) => {
      resource[name] = { ...entries(resource), ...more };
    };
    return [
      slot(
        "{}",
        (resource, text) => put(resource, { [KEY]: text }),
        (resource) => entries(resource)[KEY],
      ),
      slot(
        "{key}",
        (resource, text) => put(resource, { [text]: "v" }),
        (resource, text) => ownKey(entries(resource), text),
      ),
    ];
  }
  if (field.fieldKind === "list") {
    const items = (resource: JsonObject) => (resource[name] ?? []) as JsonValue[];
    const put = (resource: JsonObject, item: JsonValue) => {
      resource[name] = [...items(resource), item];
    };
    if (field.scalar === ScalarType.STRING) return [slot("[]", put, (resource) => items(resource)[0])];
    if (!isStruct(field)) return [];
    return [
      slot(
        "[]{}",
        (resource, text) => put(resource, { [KEY]: text }),
        (resource) => items(resource).map((item) => (item as JsonObject)[KEY])[0],
      ),
      slot(
        "[]{key}",
        (resource, text) => put(resource, { [text]: "v" }),
        (resource, text) => ownKey(items(resource).at(-1) as JsonObject, text),
      ),
    ];
  }
  if (field.message !== undefined) {
    const inner = (resource: JsonObject) => (resource[name] ?? {}) as JsonObject;
    return slotsOf(field.message).map((one) => ({
      name: `${name}.${one.name}`,
      field: `${name}.${one.field}`,
      put: (resource, text) => {
        const nested = { ...inner(resource) };
        one.put(nested, text);
        resource[name] = nested;
      },
      take: (resource, text) => one.take(inner(resource), text),
    }));
  }
  if (field.scalar !== ScalarType.STRING) return [];
  const put = (resource: JsonObject, text: string) => {
    resource[name] = text;
  };
  return [slot("", put, (resource) => resource[name])];
}

function isStruct(field: DescField): boolean {
  return field.message?.typeName === "google.protobuf.Struct";
}

function ownKey(object: JsonObject, text: string): string | undefined {
  return Object.hasOwn(object, text) ? text : undefined;
}
