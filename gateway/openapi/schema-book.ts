import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescOneof,
  getOption,
  hasOption,
} from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { oneof as oneofOption } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { FieldBehavior } from "#gen/google/api/field_behavior_pb.ts";
import { behaves, constraintsOf, isRequired } from "./constraints.ts";
import { docOf } from "./proto-docs.ts";
import { defined, orNull, type Schema } from "./schema.ts";
import { type Direction, isAnswer, scalarSchema, wellKnownSchema } from "./value-schema.ts";

/** Names of fields besides those of the protos: from the other name to the field's. */
type FieldAliases = (desc: DescMessage) => ReadonlyMap<string, string> | undefined;

/**
 * The schemas of one OpenAPI document. Every message and enum that is asked for becomes a component once. A message in a
 * request and the same one in an answer are two: a request may leave out, may say null, and knows no other names; an
 * answer has every field without presence.
 */
export class SchemaBook {
  readonly components: Record<string, Schema> = {};
  readonly #aliases: FieldAliases;
  readonly #names = new Map<string, string>();

  constructor(aliases: FieldAliases) {
    this.#aliases = aliases;
  }

  /** A reference to the component of a message; its JSON form itself for a well-known type. */
  ref(desc: DescMessage, direction: Direction): Schema {
    const known = wellKnownSchema(desc, direction);
    if (known !== undefined) return known;
    const suffix = isAnswer(direction) || desc.name.endsWith("Request") ? "" : "Input";
    return this.#component(desc, `${shortName(desc)}${suffix}`, direction, () => this.message(desc, direction));
  }

  /** Adds a component that no descriptor has. */
  define(name: string, schema: Schema): Schema {
    if (this.components[name] !== undefined) throw new Error(`OpenAPI: two schemas are named ${name}`);
    this.components[name] = schema;
    return reference(name);
  }

  /** The schema of a message, written out. @param omit fields that it does not have here */
  message(desc: DescMessage, direction: Direction, omit: ReadonlySet<DescField> = new Set()): Schema {
    const fields = desc.fields.filter((field) => !omit.has(field));
    const properties: Record<string, Schema> = {};
    const required = new Set<string>();
    for (const field of fields) {
      properties[field.name] = this.field(field, direction);
      if (isAnswer(direction) ? direction === "output" && isAlwaysShown(field) : isRequired(field))
        required.add(field.name);
    }
    for (const [alias, name] of this.#aliases(desc) ?? []) {
      const { description: _described, ...schema } = properties[name] ?? {};
      properties[alias] = { ...schema, description: `The same as \`${name}\`.` };
      if (isAnswer(direction) && required.has(name)) required.add(alias);
    }
    const oneofs = desc.oneofs.filter((oneof) => oneof.fields.some((field) => !omit.has(field))).map(choice);
    return defined({
      type: "object",
      description: docOf(desc),
      properties,
      required: required.size > 0 ? [...required] : undefined,
      additionalProperties: direction === "input" ? false : undefined,
      allOf: oneofs.length > 0 ? oneofs : undefined,
    });
  }

  /** The schema of a field's value with all that is known of the field. */
  field(field: DescField, direction: Direction): Schema {
    const checked = isAnswer(direction) ? {} : constraintsOf(field);
    const outputOnly = behaves(field, FieldBehavior.OUTPUT_ONLY);
    const value = this.#value(field, direction, checked);
    const takesNull = direction === "input" && !isRequired(field) && field.oneof === undefined;
    return defined({
      ...(takesNull ? orNull(value) : value),
      description: description(field),
      readOnly: outputOnly ? true : undefined,
      writeOnly: behaves(field, FieldBehavior.INPUT_ONLY) ? true : undefined,
      deprecated: field.deprecated ? true : undefined,
    });
  }

  #value(
    field: DescField,
    direction: Direction,
    { items, propertyNames, additionalProperties, ...own }: Schema,
  ): Schema {
    switch (field.fieldKind) {
      case "list":
        return { type: "array", items: merged(this.#element(field, direction), items), ...own };
      case "map":
        return defined({
          type: "object",
          propertyNames,
          additionalProperties: merged(this.#element(field, direction), additionalProperties),
          ...own,
        });
      default:
        return { ...this.#element(field, direction), ...own };
    }
  }

  #element(field: DescField, direction: Direction): Schema {
    if (field.message !== undefined) return this.ref(field.message, direction);
    if (field.enum !== undefined) return this.#enum(field.enum);
    return field.scalar === undefined ? {} : scalarSchema(field.scalar, direction);
  }

  #enum(desc: DescEnum): Schema {
    if (desc.typeName === "google.protobuf.NullValue") return { type: "null" };
    return this.#component(desc, shortName(desc), "enum", () => {
      const values = desc.values.map((value) => {
        const doc = docOf(value);
        return `- \`${value.name}\`${doc === undefined ? "" : `: ${doc}`}`;
      });
      const description = [docOf(desc), values.join("\n")].filter((part) => part !== undefined).join("\n\n");
      return { type: "string", description, enum: desc.values.map(({ name }) => name) };
    });
  }

  /** Short names are for people; a second schema of the same name gets a full one. */
  #component(desc: DescMessage | DescEnum, short: string, kind: string, make: () => Schema): Schema {
    const key = `${desc.typeName}|${kind}`;
    const before = this.#names.get(key);
    if (before !== undefined) return reference(before);
    const name = this.components[short] === undefined ? short : `${desc.typeName}.${kind}`;
    this.#names.set(key, name);
    // The place is taken before the schema is made: a message may hold itself.
    this.components[name] = {};
    this.components[name] = make();
    return reference(name);
  }
}

export function reference(name: string): Schema {
  return { $ref: `#/components/schemas/${name}` };
}

function shortName(desc: DescMessage | DescEnum): string {
  const pack = desc.file.proto.package;
  return pack === "" ? desc.typeName : desc.typeName.slice(pack.length + 1);
}

/** A constraint of the elements, beside what their type says. */
function merged(schema: Schema, more: Schema[string] | undefined): Schema {
  return more !== null && typeof more === "object" && !Array.isArray(more)
    ? { ...schema, ...(more as Schema) }
    : schema;
}

function description(field: DescField): string | undefined {
  const text = docOf(field);
  if (!behaves(field, FieldBehavior.IMMUTABLE)) return text;
  return [text, "Cannot be changed."].filter((part) => part !== undefined).join(" ");
}

/** The writer leaves out what has presence and is not set, and nothing else. */
function isAlwaysShown(field: DescField): boolean {
  if (field.fieldKind === "list" || field.fieldKind === "map") return true;
  return field.fieldKind !== "message" && field.presence === FeatureSet_FieldPresence.IMPLICIT && !field.oneof;
}

/** One member, or none where the oneof may be empty. */
function choice(oneof: DescOneof): Schema {
  const members: Schema[] = oneof.fields.map(({ name }) => ({ required: [name] }));
  const mayBeEmpty = !(hasOption(oneof, oneofOption) && getOption(oneof, oneofOption).required);
  return { oneOf: mayBeEmpty ? [...members, { not: { anyOf: members } }] : members };
}
