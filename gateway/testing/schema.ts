import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  create,
  createFileRegistry,
  type DescFile,
  type DescMessage,
  type DescService,
  setExtension,
} from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  DescriptorProtoSchema,
  type EnumDescriptorProto,
  EnumDescriptorProtoSchema,
  type FieldDescriptorProto,
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FieldDescriptorProtoSchema,
  FieldOptionsSchema,
  FileDescriptorProtoSchema,
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_field_mask,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
  MethodDescriptorProtoSchema,
  MethodOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { auth, Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import { embedded_json } from "#gen/agentmesh/common/v1/json_option_pb.ts";
import { SseRuleSchema, sse } from "#gen/agentmesh/common/v1/sse_option_pb.ts";
import { http } from "#gen/google/api/annotations_pb.ts";
import { FieldBehavior, field_behavior } from "#gen/google/api/field_behavior_pb.ts";
import { HttpRuleSchema } from "#gen/google/api/http_pb.ts";

// Descriptors made in a test, so that what the product's own protos do not use is tested too.

export type HttpInit = MessageInitShape<typeof HttpRuleSchema>;

export interface MethodInit {
  /** Default Call. */
  name?: string;
  input: string;
  output: string;
  http?: HttpInit;
  stream?: "server" | "client" | "both";
  sse?: MessageInitShape<typeof SseRuleSchema>;
  exposure?: Exposure;
  anyScope?: string[];
}

export interface FieldInit {
  repeated?: boolean;
  /** Explicit presence (proto3 `optional`). */
  optional?: boolean;
  oneof?: string;
  /** Key type of a map. */
  mapKey?: string;
  outputOnly?: boolean;
  embeddedJson?: string;
}

/** Fields by name: a type (`int32`, `.test.v1.Child`, `.google.protobuf.Timestamp`), or the type and more. */
export type MessageInit = Readonly<Record<string, string | readonly [type: string, more: FieldInit]>>;

export interface SchemaInit {
  messages: Readonly<Record<string, MessageInit>>;
  enums?: Readonly<Record<string, readonly string[]>>;
  methods?: readonly MethodInit[];
}

export interface Schema {
  service: DescService;
  message(name: string): DescMessage;
}

const IMPORTS: readonly DescFile[] = [
  file_google_protobuf_any,
  file_google_protobuf_duration,
  file_google_protobuf_field_mask,
  file_google_protobuf_struct,
  file_google_protobuf_timestamp,
  file_google_protobuf_wrappers,
];

/** The package `test.v1` with these messages and a service `TestService`. */
export function schema(init: SchemaInit): Schema {
  const enums = new Set(Object.keys(init.enums ?? {}).map((name) => `.test.v1.${name}`));
  const file = create(FileDescriptorProtoSchema, {
    name: "test/v1/test.proto",
    package: "test.v1",
    syntax: "proto3",
    dependency: IMPORTS.map(({ name }) => `${name}.proto`),
    messageType: Object.entries(init.messages).map(([name, fields]) => messageProto(name, fields, enums)),
    enumType: Object.entries(init.enums ?? {}).map(enumProto),
    service: [{ name: "TestService", method: (init.methods ?? []).map(methodProto) }],
  });
  const registry = createFileRegistry(file, (name) => IMPORTS.find((one) => `${one.name}.proto` === name)?.proto);
  const found = <T>(value: T | undefined, name: string): T => {
    if (value === undefined) throw new Error(`no ${name} in the test schema`);
    return value;
  };
  return {
    service: found(registry.getService("test.v1.TestService"), "service"),
    message: (name) => found(registry.getMessage(`test.v1.${name}`), name),
  };
}

function messageProto(name: string, fields: MessageInit, enums: ReadonlySet<string>): DescriptorProto {
  const message = create(DescriptorProtoSchema, { name });
  const oneofs: string[] = [];
  const optionals: FieldDescriptorProto[] = [];
  for (const [index, [fieldName, init]] of Object.entries(fields).entries()) {
    const [type, more = {}] = typeof init === "string" ? [init] : init;
    const field = fieldProto(fieldName, index + 1, type, more.repeated === true, enums);
    if (more.mapKey !== undefined) {
      const entryName = `${pascal(fieldName)}Entry`;
      message.nestedType.push(
        create(DescriptorProtoSchema, {
          name: entryName,
          field: [fieldProto("key", 1, more.mapKey, false, enums), fieldProto("value", 2, type, false, enums)],
          options: { mapEntry: true },
        }),
      );
      Object.assign(field, fieldProto(fieldName, index + 1, `.test.v1.${name}.${entryName}`, true, enums));
    }
    if (more.oneof !== undefined) {
      if (!oneofs.includes(more.oneof)) oneofs.push(more.oneof);
      field.oneofIndex = oneofs.indexOf(more.oneof);
    }
    if (more.optional === true) optionals.push(field);
    field.options = create(FieldOptionsSchema);
    if (more.outputOnly === true) setExtension(field.options, field_behavior, [FieldBehavior.OUTPUT_ONLY]);
    if (more.embeddedJson !== undefined) setExtension(field.options, embedded_json, more.embeddedJson);
    message.field.push(field);
  }
  // Synthetic oneofs come after the real ones (descriptor.proto, proto3_optional).
  for (const field of optionals) {
    field.proto3Optional = true;
    field.oneofIndex = oneofs.push(`_${field.name}`) - 1;
  }
  message.oneofDecl = oneofs.map((oneof) => ({
    $typeName: "google.protobuf.OneofDescriptorProto" as const,
    name: oneof,
  }));
  return message;
}

function fieldProto(name: string, number: number, type: string, repeated: boolean, enums: ReadonlySet<string>) {
  const label = repeated ? FieldDescriptorProto_Label.REPEATED : FieldDescriptorProto_Label.OPTIONAL;
  const jsonName = name.replace(/_([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase());
  const common = { name, number, jsonName, label };
  if (type.startsWith(".")) {
    const kind = enums.has(type) || type === ".google.protobuf.NullValue" ? "ENUM" : "MESSAGE";
    return create(FieldDescriptorProtoSchema, { ...common, type: FieldDescriptorProto_Type[kind], typeName: type });
  }
  const scalar = FieldDescriptorProto_Type[type.toUpperCase() as keyof typeof FieldDescriptorProto_Type];
  if (scalar === undefined) throw new Error(`no type ${type}`);
  return create(FieldDescriptorProtoSchema, { ...common, type: scalar });
}

function enumProto([name, values]: [string, readonly string[]]): EnumDescriptorProto {
  return create(EnumDescriptorProtoSchema, { name, value: values.map((value, number) => ({ name: value, number })) });
}

function methodProto(init: MethodInit) {
  const options = create(MethodOptionsSchema);
  setExtension(options, auth, {
    $typeName: "agentmesh.common.v1.AuthRule",
    anyScope: init.anyScope ?? ["agents:read"],
    exposure: init.exposure ?? Exposure.PUBLIC_API,
  });
  if (init.http !== undefined) setExtension(options, http, create(HttpRuleSchema, init.http));
  if (init.sse !== undefined) setExtension(options, sse, create(SseRuleSchema, init.sse));
  return create(MethodDescriptorProtoSchema, {
    name: init.name ?? "Call",
    inputType: `.test.v1.${init.input}`,
    outputType: `.test.v1.${init.output}`,
    serverStreaming: init.stream === "server" || init.stream === "both",
    clientStreaming: init.stream === "client" || init.stream === "both",
    options,
  });
}

function pascal(name: string): string {
  return name.replace(/(?:^|_)([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase());
}
