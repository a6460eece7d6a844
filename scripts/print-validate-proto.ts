// Prints buf/validate/validate.proto from the descriptor inside @bufbuild/protovalidate: the npm package carries no .proto source.
// It prints the constructs that this one file uses; print-validate-proto.test.ts compiles the result and compares the descriptors.
//   node scripts/print-validate-proto.ts > proto/buf/validate/validate.proto
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { getOption, hasOption, isFieldSet } from "@bufbuild/protobuf";
import type { DescriptorProto, EnumDescriptorProto, FieldDescriptorProto } from "@bufbuild/protobuf/wkt";
import {
  FieldDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import {
  file_buf_validate_validate as file,
  predefined,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

const header = `// Copyright 2023-2026 Buf Technologies, Inc.
//
// Licensed under the Apache License, Version 2.0 (the "License");
// you may not use this file except in compliance with the License.
// You may obtain a copy of the License at
//
//      http://www.apache.org/licenses/LICENSE-2.0
//
// Unless required by applicable law or agreed to in writing, software
// distributed under the License is distributed on an "AS IS" BASIS,
// WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
// See the License for the specific language governing permissions and
// limitations under the License.
//
// Printed by scripts/print-validate-proto.ts from the descriptor in @bufbuild/protovalidate; comments of the original are not in it.
// The original: https://github.com/bufbuild/protovalidate
`;

const maxFieldNumber = 536_870_911;
const quote = (text: string) => JSON.stringify(text);
const inOneof = (field: FieldDescriptorProto) => isFieldSet(field, FieldDescriptorProtoSchema.field.oneofIndex);
const indent = (lines: string[]) => lines.map((line) => (line === "" ? line : `  ${line}`));
const block = (head: string, body: string[]) => [`${head} {`, ...indent(body), "}", ""];

function typeName(field: FieldDescriptorProto): string {
  const scalar = Type[field.type].toLowerCase();
  return field.typeName === "" ? scalar : field.typeName.replace(/^\.(buf\.validate\.)?/, "");
}

function fieldLines(field: FieldDescriptorProto, desc?: DescField): string[] {
  const label = inOneof(field) ? "" : `${Label[field.label].toLowerCase()} `;
  const head = `${label}${typeName(field)} ${field.name} = ${field.number}`;
  if (!desc || !hasOption(desc, predefined)) return [`${head};`];
  const rules = getOption(desc, predefined).cel.map((rule) => [
    "(predefined).cel = {",
    ...indent(
      (["id", "message", "expression"] as const).filter((k) => rule[k] !== "").map((k) => `${k}: ${quote(rule[k])}`),
    ),
    "}",
  ]);
  const joined = rules.flatMap((lines, i) => (i < rules.length - 1 ? [...lines.slice(0, -1), "},"] : lines));
  return [`${head} [`, ...indent(joined), "];"];
}

/** Ranges with an exclusive end (messages) or an inclusive one (enums: `inclusive` = 1). */
function rangeText(ranges: readonly { start: number; end: number }[], inclusive = 0): string {
  const last = (end: number) => (end - 1 + inclusive === maxFieldNumber ? "max" : `${end - 1 + inclusive}`);
  return ranges.map((r) => (last(r.end) === `${r.start}` ? `${r.start}` : `${r.start} to ${last(r.end)}`)).join(", ");
}

function reservedLines(proto: DescriptorProto | EnumDescriptorProto, inclusive = 0): string[] {
  return [
    ...(proto.reservedRange.length > 0 ? [`reserved ${rangeText(proto.reservedRange, inclusive)};`] : []),
    ...(proto.reservedName.length > 0 ? [`reserved ${proto.reservedName.map(quote).join(", ")};`] : []),
  ];
}

function messageLines(message: DescMessage): string[] {
  const body: string[] = [];
  const descOf = (proto: FieldDescriptorProto) => message.fields.find((field) => field.number === proto.number);
  const opened = new Set<number>();
  for (const proto of message.proto.field) {
    if (!inOneof(proto)) body.push(...fieldLines(proto, descOf(proto)));
    else if (!opened.has(proto.oneofIndex)) {
      opened.add(proto.oneofIndex);
      const members = message.proto.field.filter((field) => inOneof(field) && field.oneofIndex === proto.oneofIndex);
      const name = message.proto.oneofDecl[proto.oneofIndex]?.name;
      body.push(
        ...block(
          `oneof ${name}`,
          members.flatMap((field) => fieldLines(field, descOf(field))),
        ).slice(0, -1),
      );
    }
  }
  const extensions =
    message.proto.extensionRange.length > 0 ? [`extensions ${rangeText(message.proto.extensionRange)};`] : [];
  return block(`message ${message.name}`, [...body, ...reservedLines(message.proto), ...extensions]);
}

function enumLines(proto: EnumDescriptorProto): string[] {
  return block(`enum ${proto.name}`, [
    ...proto.value.map((v) => `${v.name} = ${v.number};`),
    ...reservedLines(proto, 1),
  ]);
}

/** The text of validate.proto. */
export function printValidateProto(): string {
  const { proto } = file;
  const options = proto.options;
  return [
    header,
    'syntax = "proto2";',
    "",
    `package ${proto.package};`,
    "",
    ...proto.dependency.map((path) => `import ${quote(path)};`),
    "",
    `option go_package = ${quote(options?.goPackage ?? "")};`,
    `option java_multiple_files = ${options?.javaMultipleFiles};`,
    `option java_outer_classname = ${quote(options?.javaOuterClassname ?? "")};`,
    `option java_package = ${quote(options?.javaPackage ?? "")};`,
    "",
    ...proto.extension.flatMap((field) => block(`extend ${field.extendee.slice(1)}`, fieldLines(field))),
    ...file.messages.flatMap(messageLines),
    ...proto.enumType.flatMap(enumLines),
  ]
    .join("\n")
    .trimEnd()
    .concat("\n");
}

if (import.meta.main) process.stdout.write(printValidateProto());
