import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { fromBinary, getExtension } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { FileDescriptorProtoSchema, type MethodDescriptorProto } from "@bufbuild/protobuf/wkt";
import { auth, Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import { isPublic } from "#platform/rpc/method-rules.ts";
import { PUBLIC_SERVICES, publicMethods } from "./public-services.ts";

const GEN = new URL("../gen/agentmesh/", import.meta.url);

/** Names of the services in gen/, by whether they have a public method; read from the descriptors in the files' text. */
async function generatedServices(): Promise<{ open: string[]; closed: string[] }> {
  const found: { open: string[]; closed: string[] } = { open: [], closed: [] };
  for (const name of await readdir(GEN, { recursive: true })) {
    if (!name.endsWith("_pb.ts")) continue;
    const text = await readFile(new URL(name, GEN), "utf8");
    const [, encoded = ""] = /fileDesc\("([A-Za-z0-9+/=]+)"/.exec(text) ?? assert.fail(`no descriptor in ${name}`);
    const file = fromBinary(FileDescriptorProtoSchema, base64Decode(encoded));
    for (const service of file.service) {
      const kind = service.method.some(isOpen) ? "open" : "closed";
      found[kind].push(`${file.package}.${service.name}`);
    }
  }
  return found;
}

function isOpen({ options }: MethodDescriptorProto): boolean {
  if (options === undefined) return false;
  const { exposure } = getExtension(options, auth);
  return exposure === Exposure.PUBLIC_API || exposure === Exposure.ANONYMOUS;
}

describe("the list of public services", () => {
  test("has every service with a public method, and no other", async () => {
    const { open, closed } = await generatedServices();
    assert.deepEqual(PUBLIC_SERVICES.map(({ typeName }) => typeName).sort(), open.sort());
    assert.ok(closed.length > 0, "there are services between services alone");
  });

  test("gives the public methods alone", () => {
    const methods = publicMethods(PUBLIC_SERVICES);
    assert.ok(methods.every(isPublic));
    assert.equal(methods.length, PUBLIC_SERVICES.flatMap((service) => service.methods).filter(isPublic).length);
  });
});
