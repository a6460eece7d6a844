import { create, type DescField, type DescMessage, getOption } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { type FieldMask, FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { FieldBehavior, field_behavior } from "#gen/google/api/field_behavior_pb.ts";
import { fieldNamed } from "./json/read-message.ts";
import type { Problems } from "./problems.ts";
import type { RequestFields } from "./request-fields.ts";
import type { PathVariable } from "./route.ts";

/** Refuses a mask of the caller's that names what the resource does not have. */
export function checkMask(request: RequestFields, mask: DescField, resource: DescField, problems: Problems): void {
  for (const path of maskPaths(request, mask)) {
    const names = path.split(".");
    const known = path === "*" ? maskPaths(request, mask).length === 1 : leadsSomewhere(resource.message, names);
    if (!known) problems.add("UPDATE_MASK_INVALID", mask.name, `no such field: ${path.slice(0, 128)}`);
  }
}

/**
 * Without a mask, a PATCH changes exactly the fields whose keys the body has, so that "", false and null clear a field
 * (AIP-134). Left out are those that the server sets (a resource that was read may be sent back whole), the ones of the
 * path, and the etag, which is a condition and no change.
 */
export function deriveMask(
  request: RequestFields,
  mask: DescField,
  resource: DescField,
  variables: readonly PathVariable[],
): void {
  if (maskPaths(request, mask).length > 0) return;
  const inPath = new Set(variables.map(({ variable }) => variable.field.join(".")));
  const paths = request.inBody
    .filter(({ fields, path }) => fields[0] === resource && fields.length > 1 && !inPath.has(path))
    .filter(({ fields }) => !(fields.length === 2 && fields[1]?.name === "etag") && !fields.some(isOutputOnly))
    .map(({ fields }) =>
      fields
        .slice(1)
        .map(({ name }) => name)
        .join("."),
    );
  if (paths.length > 0) request.message.set(mask, reflect(FieldMaskSchema, create(FieldMaskSchema, { paths })));
}

function maskPaths(request: RequestFields, mask: DescField): readonly string[] {
  if (mask.fieldKind !== "message" || !request.message.isSet(mask)) return [];
  return (request.message.get(mask).message as FieldMask).paths;
}

/** Below a map or a well-known type a path is the service's business. */
function leadsSomewhere(desc: DescMessage | undefined, names: readonly string[]): boolean {
  let at = desc;
  for (const name of names) {
    if (at === undefined) return false;
    const field = fieldNamed(at, name);
    if (field === undefined) return false;
    if (field.fieldKind === "map" || field.message?.typeName.startsWith("google.protobuf.")) return true;
    at = field.fieldKind === "message" ? field.message : undefined;
  }
  return true;
}

function isOutputOnly(field: DescField): boolean {
  return getOption(field, field_behavior).includes(FieldBehavior.OUTPUT_ONLY);
}
