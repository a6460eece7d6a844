import type { DescEnumValue, DescField, DescMessage, DescMethod, DescOneof, DescService } from "@bufbuild/protobuf";
import docs from "./proto-docs.json" with { type: "json" };

const comments: Readonly<Record<string, string>> = docs;

/**
 * What the protos' comments say of a type, field, method or enum value; undefined for those of other projects. Generated
 * code holds no comments, so that scripts/proto-docs.ts keeps them in proto-docs.json.
 */
export function docOf(
  desc: DescMessage | DescField | DescOneof | DescMethod | DescService | DescEnumValue | { readonly typeName: string },
): string | undefined {
  const name = "typeName" in desc ? desc.typeName : `${desc.parent.typeName}.${desc.name}`;
  return comments[name];
}
