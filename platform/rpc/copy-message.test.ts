import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { create, createFileRegistry, equals, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema, StructSchema } from "@bufbuild/protobuf/wkt";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { copyMessage } from "./copy-message.ts";

const kinds = create(StructSchema, {
  fields: {
    __proto__text: { kind: { case: "stringValue", value: "ä\ud83d\ude00" } },
    list: { kind: { case: "listValue", value: { values: [{ kind: { case: "numberValue", value: 1.5 } }] } } },
    inner: { kind: { case: "structValue", value: { fields: { a: { kind: { case: "boolValue", value: true } } } } } },
  },
});

describe("a copy of a message", () => {
  test("equals it: oneofs, maps, lists, bytes, unknown fields, and defaults of proto2", () => {
    assert.ok(equals(StructSchema, kinds, copyMessage(kinds).copy));
    const file = create(FileDescriptorProtoSchema, { name: "a.proto", options: { deprecated: false } });
    file.$unknown = [{ no: 9_000, wireType: 2, data: new Uint8Array([1, 7]) }];
    const { copy } = copyMessage(file);
    assert.deepEqual(copy.$unknown, file.$unknown);
    assert.equal(copy.options?.javaPackage, "");
    assert.deepEqual(Object.keys(copy), Object.keys(file));
    assert.deepEqual(toBinary(FileDescriptorProtoSchema, copy), toBinary(FileDescriptorProtoSchema, file));
  });

  test("works as the original does where descriptors are made of it", () => {
    const set = create(FileDescriptorSetSchema, { file: [file_google_rpc_error_details.proto] });
    const files = [...file_google_rpc_error_details.dependencies].map(({ proto }) => proto);
    const { copy } = copyMessage(create(FileDescriptorSetSchema, { file: [...files, ...set.file] }));
    assert.ok(createFileRegistry(copy).getMessage("google.rpc.ErrorInfo"));
  });

  test("shares nothing that can be changed", () => {
    const { copy } = copyMessage(kinds);
    const visit = (a: unknown, b: unknown, path: string): void => {
      if (typeof a !== "object" || a === null) return;
      assert.notEqual(a, b, path);
      for (const key of Object.keys(a)) visit((a as never)[key], (b as never)[key], `${path}.${key}`);
    };
    visit(kinds, copy, "message");
    const pooled = Buffer.from("abc");
    const bytes = copyMessage({ $typeName: "x", bytes: pooled } as never) as unknown as { copy: { bytes: Uint8Array } };
    pooled.fill(0);
    assert.deepEqual([...bytes.copy.bytes], [97, 98, 99]);
  });

  test("is said to be no smaller than it is", () => {
    for (const message of [
      kinds,
      create(StructSchema),
      create(StructSchema, { fields: { "": { kind: { case: "stringValue", value: "€".repeat(500) } } } }),
    ]) {
      assert.ok(copyMessage(message).bytesAtMost >= toBinary(StructSchema, message).length);
    }
  });
});
