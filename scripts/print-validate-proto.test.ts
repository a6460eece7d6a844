import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { createRegistry, equals, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { file_buf_validate_validate as published } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { printValidateProto } from "./print-validate-proto.ts";

const root = join(import.meta.dirname, "..");

describe("the vendored validate.proto", () => {
  test("is what the installed @bufbuild/protovalidate prints", () => {
    assert.equal(readFileSync(join(root, "proto/buf/validate/validate.proto"), "utf8"), printValidateProto());
  });

  test("compiles to the descriptor in @bufbuild/protovalidate", () => {
    const args = [
      "build",
      "proto",
      "--path",
      "proto/buf",
      "--as-file-descriptor-set",
      "--exclude-source-info",
      "-o",
      "-",
    ];
    const set = fromBinary(FileDescriptorSetSchema, execFileSync("buf", args, { cwd: root, timeout: 60_000 }));
    const compiled = set.file.find((file) => file.name === "buf/validate/validate.proto");
    assert.ok(compiled, "buf compiled the file");
    assert.ok(
      equals(FileDescriptorProtoSchema, compiled, published.proto, { registry: createRegistry(), unknown: true }),
    );
  });
});
