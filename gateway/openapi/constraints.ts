import { type DescField, getOption, hasOption, ScalarType } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import {
  type FieldRules,
  FieldRulesSchema,
  Ignore,
  field as rulesOption,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { FieldBehavior, field_behavior } from "#gen/google/api/field_behavior_pb.ts";
import type { Schema } from "./schema.ts";

const WIDE: ReadonlySet<ScalarType | undefined> = new Set([
  ScalarType.INT64,
  ScalarType.SINT64,
  ScalarType.SFIXED64,
  ScalarType.UINT64,
  ScalarType.FIXED64,
]);

/** True for the integers that JSON carries as strings. */
export function isWide(scalar: ScalarType | undefined): boolean {
  return WIDE.has(scalar);
}

export function behaves(field: DescField, behavior: FieldBehavior): boolean {
  return getOption(field, field_behavior).includes(behavior);
}

/** True when a request is refused without the field. */
export function isRequired(field: DescField): boolean {
  if (behaves(field, FieldBehavior.REQUIRED)) return true;
  if (!hasOption(field, rulesOption)) return false;
  const rules = getOption(field, rulesOption);
  return rules.required && rules.ignore === Ignore.UNSPECIFIED;
}

/** The rules of buf.validate that JSON Schema can say; CEL expressions it cannot. */
export function constraintsOf(field: DescField): Schema {
  return hasOption(field, rulesOption) ? rulesSchema(getOption(field, rulesOption), field.scalar) : {};
}

function rulesSchema(rules: FieldRules, scalar: ScalarType | undefined): Schema {
  const schema: Schema = {};
  if (rules.type.case === undefined || rules.type.case === "enum") return schema;
  const desc = FieldRulesSchema.field[rules.type.case].message;
  if (desc === undefined) return schema;
  const set = reflect(desc, rules.type.value, false);
  for (const field of desc.fields) {
    if (!set.isSet(field)) continue;
    if (field.fieldKind === "message") {
      // The rest are limits of times and durations: JSON Schema has none for their texts.
      const keyword = NESTED[field.name];
      if (keyword === undefined) continue;
      const inner = rulesSchema(set.get(field).message as FieldRules, undefined);
      if (Object.keys(inner).length > 0) schema[keyword] = inner;
    } else if (field.fieldKind === "scalar") {
      addRule(schema, field.name, set.get(field), scalar);
    }
  }
  return schema;
}

const NESTED: Readonly<Record<string, string>> = {
  items: "items",
  keys: "propertyNames",
  values: "additionalProperties",
};

const KEYWORDS: Readonly<Record<string, string>> = {
  min_len: "minLength",
  max_len: "maxLength",
  gt: "exclusiveMinimum",
  gte: "minimum",
  lt: "exclusiveMaximum",
  lte: "maximum",
  min_items: "minItems",
  max_items: "maxItems",
  unique: "uniqueItems",
  min_pairs: "minProperties",
  max_pairs: "maxProperties",
  pattern: "pattern",
};

const FORMATS: ReadonlySet<string> = new Set(["email", "hostname", "ipv4", "ipv6", "uri", "uuid"]);

function addRule(schema: Schema, rule: string, value: unknown, scalar: ScalarType | undefined): void {
  if (FORMATS.has(rule) && value === true) {
    schema["format"] = rule;
    return;
  }
  if (rule === "len") {
    Object.assign(schema, { minLength: Number(value), maxLength: Number(value) });
    return;
  }
  const keyword = KEYWORDS[rule];
  if (keyword === undefined) return;
  const inBytes = scalar === ScalarType.BYTES && keyword.endsWith("Length");
  const limit = typeof value === "bigint" ? Number(value) : value;
  if (typeof limit === "number") {
    // JSON has no number for the outermost 64-bit limits.
    if (Number.isSafeInteger(limit) || !Number.isInteger(limit))
      schema[keyword] = inBytes ? base64Length(limit) : limit;
  } else if (typeof limit === "string" || typeof limit === "boolean") {
    schema[keyword] = limit;
  }
}

/** Characters of base64 with padding; a rule counts bytes. */
function base64Length(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}
