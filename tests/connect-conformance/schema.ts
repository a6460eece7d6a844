import {
  create,
  createFileRegistry,
  type DescMessage,
  type DescService,
  type FileRegistry,
  fromBinary,
  setExtension,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, type MethodDescriptorProto, MethodOptionsSchema } from "@bufbuild/protobuf/wkt";
import { AuthRuleSchema, auth, Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";

const PACKAGE = "connectrpc.conformance.v1";

/** The suite's own service and messages, from a google.protobuf.FileDescriptorSet of its protos. */
export interface SuiteSchema {
  readonly registry: FileRegistry;
  readonly service: DescService;
  message(name: string): DescMessage;
}

/** Methods of the suite say nothing of who may call them, and our doors serve no method that does not: anybody may. */
export function readSuiteSchema(bytes: Uint8Array): SuiteSchema {
  const set = fromBinary(FileDescriptorSetSchema, bytes);
  for (const file of set.file) for (const service of file.service) service.method.forEach(openToAll);
  const registry = createFileRegistry(set);
  const service = registry.getService(`${PACKAGE}.ConformanceService`);
  if (service === undefined) throw new Error("these are not the protos of the conformance suite");
  return {
    registry,
    service,
    message(name) {
      const found = registry.getMessage(`${PACKAGE}.${name}`);
      if (found === undefined) throw new Error(`the suite has no message ${name}`);
      return found;
    },
  };
}

function openToAll(method: MethodDescriptorProto): void {
  method.options ??= create(MethodOptionsSchema);
  setExtension(method.options, auth, create(AuthRuleSchema, { exposure: Exposure.ANONYMOUS }));
}
