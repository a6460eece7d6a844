import { clone, create, type DescField, type DescMessage, isFieldSet, type MessageShape } from "@bufbuild/protobuf";
import type { FieldMask } from "@bufbuild/protobuf/wkt";
import { updateMaskInvalid } from "../errors.ts";

const STRUCT = "google.protobuf.Struct";

/** Which fields of a resource an update may name, by their proto names. */
export interface MaskRules {
  readonly updatable: ReadonlySet<string>;
  /** Say which resource and which version is meant; a mask may name them, and they change nothing. */
  readonly ignored: ReadonlySet<string>;
}

/** A resource with the changes of an update, and the top-level fields that it names. */
export interface Masked<M> {
  readonly next: M;
  readonly fields: ReadonlySet<string>;
}

type Fields = Record<string, unknown>;

/**
 * Applies an update (AIP-134): without a mask the populated fields, with `*` all, else those named, one level into a
 * message (`limits.max_tokens_per_month`). A path that is unknown or not the caller's to set is UPDATE_MASK_INVALID.
 */
export function applyMask<D extends DescMessage>(
  schema: D,
  current: MessageShape<D>,
  asked: MessageShape<D>,
  mask: FieldMask | undefined,
  rules: MaskRules,
): Masked<MessageShape<D>> {
  const next = clone(schema, current);
  const fields = new Set<string>();
  const paths = mask?.paths ?? [];
  for (const field of schema.fields) {
    if (!rules.updatable.has(field.name)) continue;
    if (!paths.includes("*") && !(paths.length === 0 && isFieldSet(asked, field))) continue;
    copy(field, next, asked);
    fields.add(field.name);
  }
  for (const path of paths) {
    if (path === "*" || rules.ignored.has(path)) continue;
    const [name = "", ...inner] = path.split(".");
    const field = schema.fields.find((one) => one.name === name);
    if (field === undefined) throw updateMaskInvalid(path, "is not a field");
    if (!rules.updatable.has(name)) throw updateMaskInvalid(path, "is set by the server");
    if (inner.length === 0) copy(field, next, asked);
    else copyInner(field, inner.join("."), path, next, asked);
    fields.add(name);
  }
  return { next, fields };
}

function copy(field: DescField, to: object, from: object): void {
  (to as Fields)[field.localName] = (from as Fields)[field.localName];
}

function copyInner(field: DescField, inner: string, path: string, to: object, from: object): void {
  // A Struct is one value; it has no fields that could be named.
  const message = field.fieldKind === "message" && field.message.typeName !== STRUCT ? field.message : undefined;
  const innerField = message?.fields.find((one) => one.name === inner);
  if (message === undefined || innerField === undefined) throw updateMaskInvalid(path, "is not a field");
  const target = ((to as Fields)[field.localName] ?? create(message)) as object;
  copy(innerField, target, ((from as Fields)[field.localName] ?? create(message)) as object);
  (to as Fields)[field.localName] = target;
}
