import { create, type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { staticFile } from "../openapi/static-file.ts";
import type { Face } from "./face.ts";

/**
 * `/api.binpb`: a google.protobuf.FileDescriptorSet of the services and all that they import, every file after its
 * imports, for `buf curl --schema`, `grpcurl -protoset` and generators of code. It has no comments.
 */
export function descriptorsFace(services: readonly DescService[]): Face {
  return staticFile(() => descriptorSet(services), "application/x-protobuf", {
    "content-disposition": 'attachment; filename="api.binpb"',
  });
}

function descriptorSet(services: readonly DescService[]): Uint8Array {
  const files = new Set<DescFile>();
  const visit = (file: DescFile) => {
    if (files.has(file)) return;
    file.dependencies.forEach(visit);
    files.add(file);
  };
  for (const { file } of services) visit(file);
  return toBinary(
    FileDescriptorSetSchema,
    create(FileDescriptorSetSchema, { file: [...files].map(({ proto }) => proto) }),
  );
}
