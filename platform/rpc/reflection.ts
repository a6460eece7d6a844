import type { MessageInitShape } from "@bufbuild/protobuf";
import { createRegistry, type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "#gen/grpc/reflection/v1alpha/reflection_pb.ts";

type ReflectionAnswer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;

/**
 * Mounts gRPC server reflection v1 and v1alpha (grpc/doc/server-reflection.md) for the given services, so that grpcurl
 * and `buf curl` need no proto files. It needs no credential and shows only what is listed here.
 */
export function mountReflection(router: ConnectRouter, services: readonly DescService[]): void {
  const files = new Map<string, DescFile>();
  const visit = (file: DescFile) => {
    const name = `${file.name}.proto`;
    if (files.has(name)) return;
    files.set(name, file);
    file.dependencies.forEach(visit);
  };
  for (const service of services) visit(service.file);
  // No service imports the details of errors, but clients that show an error look them up.
  visit(file_google_rpc_error_details);
  const registry = createRegistry(...files.values());

  const fileOf = (symbol: string): DescFile | undefined => {
    const type = registry.get(symbol);
    if (type !== undefined) return type.file;
    // A method or field: the enclosing type is what the registry knows.
    const cut = symbol.lastIndexOf(".");
    return cut < 0 ? undefined : registry.get(symbol.slice(0, cut))?.file;
  };
  // The file first, then what it imports, so that a client needs one round trip.
  const withImports = (file: DescFile): ReflectionAnswer => {
    const seen = new Set<DescFile>();
    const add = (one: DescFile) => {
      if (seen.has(one)) return;
      seen.add(one);
      one.dependencies.forEach(add);
    };
    add(file);
    const fileDescriptorProto = [...seen].map((one) => toBinary(FileDescriptorProtoSchema, one.proto));
    return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
  };
  const missing = (what: string): ReflectionAnswer => ({
    case: "errorResponse",
    value: { errorCode: Code.NotFound, errorMessage: `${what} is not known here` },
  });

  const answer = ({ messageRequest }: ServerReflectionRequest): ReflectionAnswer => {
    switch (messageRequest.case) {
      case "listServices":
        return {
          case: "listServicesResponse",
          value: { service: services.map(({ typeName }) => ({ name: typeName })) },
        };
      case "fileByFilename": {
        const file = files.get(messageRequest.value);
        return file === undefined ? missing(messageRequest.value) : withImports(file);
      }
      case "fileContainingSymbol": {
        const file = fileOf(messageRequest.value);
        return file === undefined ? missing(messageRequest.value) : withImports(file);
      }
      case "fileContainingExtension": {
        const { containingType, extensionNumber } = messageRequest.value;
        const extendee = registry.getMessage(containingType);
        const found = extendee === undefined ? undefined : registry.getExtensionFor(extendee, extensionNumber);
        return found === undefined ? missing(`${containingType} ${extensionNumber}`) : withImports(found.file);
      }
      case "allExtensionNumbersOfType": {
        const baseTypeName = messageRequest.value;
        const extensionNumber: number[] = [];
        for (const type of registry) {
          if (type.kind === "extension" && type.extendee.typeName === baseTypeName) extensionNumber.push(type.number);
        }
        return { case: "allExtensionNumbersResponse", value: { baseTypeName, extensionNumber } };
      }
      default:
        return {
          case: "errorResponse",
          value: { errorCode: Code.InvalidArgument, errorMessage: "the request asks for nothing" },
        };
    }
  };

  async function* serverReflectionInfo(requests: AsyncIterable<ServerReflectionRequest>) {
    for await (const originalRequest of requests) {
      yield { validHost: originalRequest.host, originalRequest, messageResponse: answer(originalRequest) };
    }
  }
  router.service(ServerReflection, { serverReflectionInfo });
  // The messages of v1alpha have the same fields as those of v1; only the package differs.
  router.service(ServerReflectionAlpha, { serverReflectionInfo } as never);
}
