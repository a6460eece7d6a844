// Writes what the comments of proto/agentmesh say to gateway/openapi/proto-docs.json, by full name: generated code holds no
// comments, and /openapi.json shows them. proto-docs.test.ts compares the file with the protos.
//   node scripts/proto-docs.ts
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { fromBinary } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FileDescriptorProto,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

export const PROTO_DOCS = fileURLToPath(new URL("../gateway/openapi/proto-docs.json", import.meta.url));

/** Numbers of the fields that hold definitions, as they occur in SourceCodeInfo paths (descriptor.proto). */
const FILE = { message: 4, enum: 5, service: 6 };
const MESSAGE = { field: 2, message: 3, enum: 4, oneof: 8 };
const MEMBER = 2;

/** The file's text as it should be. Runs `buf build`. */
export function protoDocs(): string {
  const image = execFileSync("buf", ["build", "-o", "-#format=binpb"], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    maxBuffer: 64 * 1024 * 1024,
  });
  const docs = new Map<string, string>();
  for (const file of fromBinary(FileDescriptorSetSchema, image).file) {
    if (!file.name.startsWith("agentmesh/")) continue;
    const names = namesOf(file);
    for (const { path, leadingComments } of file.sourceCodeInfo?.location ?? []) {
      const name = names.get(path.join());
      if (name !== undefined && leadingComments.trim() !== "") docs.set(name, flowed(leadingComments));
    }
  }
  const sorted = [...docs].sort(([a], [b]) => (a < b ? -1 : 1));
  return `${JSON.stringify(Object.fromEntries(sorted), null, 2)}\n`;
}

/** Full names by path of every definition in a file. */
function namesOf({ package: pack, messageType, enumType, service }: FileDescriptorProto): Map<string, string> {
  const names = new Map<string, string>();
  const addEnum = ({ name, value }: EnumDescriptorProto, parent: string, path: readonly number[]) => {
    names.set(path.join(), `${parent}.${name}`);
    for (const [at, one] of value.entries()) names.set([...path, MEMBER, at].join(), `${parent}.${name}.${one.name}`);
  };
  const addMessage = (message: DescriptorProto, parent: string, path: readonly number[]) => {
    const name = `${parent}.${message.name}`;
    names.set(path.join(), name);
    for (const [at, one] of message.field.entries())
      names.set([...path, MESSAGE.field, at].join(), `${name}.${one.name}`);
    for (const [at, one] of message.oneofDecl.entries()) {
      names.set([...path, MESSAGE.oneof, at].join(), `${name}.${one.name}`);
    }
    for (const [at, one] of message.nestedType.entries()) addMessage(one, name, [...path, MESSAGE.message, at]);
    for (const [at, one] of message.enumType.entries()) addEnum(one, name, [...path, MESSAGE.enum, at]);
  };
  for (const [at, one] of messageType.entries()) addMessage(one, pack, [FILE.message, at]);
  for (const [at, one] of enumType.entries()) addEnum(one, pack, [FILE.enum, at]);
  for (const [at, one] of service.entries()) {
    names.set([FILE.service, at].join(), `${pack}.${one.name}`);
    for (const [index, { name }] of one.method.entries()) {
      names.set([FILE.service, at, MEMBER, index].join(), `${pack}.${one.name}.${name}`);
    }
  }
  return names;
}

/** Lines of a paragraph are one line; an empty line stays one. */
function flowed(comment: string): string {
  return comment
    .split(/\n[ \t]*\n/)
    .map((paragraph) => paragraph.trim().replace(/\s*\n\s*/g, " "))
    .filter((paragraph) => paragraph !== "")
    .join("\n\n");
}

if (import.meta.main) writeFileSync(PROTO_DOCS, protoDocs());
