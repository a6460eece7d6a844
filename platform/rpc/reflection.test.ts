import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test } from "node:test";
import {
  create,
  createFileRegistry,
  createRegistry,
  type DescFile,
  fromBinary,
  getOption,
  hasOption,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { type Client, Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import { auth } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus as Status,
} from "#gen/grpc/health/v1/health_pb.ts";
import {
  ServerReflection,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { rootSecret } from "../secrets/root-secret.ts";
import { mountHealth } from "./health.ts";
import { createHopVerifier } from "./hop-token.ts";
import { openPort, type Port } from "./port.ts";
import { mountReflection } from "./reflection.ts";
import { deriveServiceKeys } from "./service-keys.ts";
import { createServicePipeline } from "./service-pipeline.ts";
import { adapt, RecordedCalls } from "./test-mesh.contract.ts";

const SERVICES = [ToolService, ToolExecutionService, Health];

let port: Port;
let client: Client<typeof ServerReflection>;

before(async () => {
  const keys = deriveServiceKeys(rootSecret([randomBytes(32)]), ["tool"]);
  const pipeline = createServicePipeline({
    verifier: createHopVerifier(["tool"], keys),
    observation: new RecordedCalls(),
  });
  const listener = adapt((router) => {
    mountReflection(router, SERVICES);
    mountHealth(router, { ready: () => true, services: () => [ToolService.typeName], onChange: () => () => {} });
  }, pipeline);
  port = await openPort({ host: "127.0.0.1", port: 0, listener });
  client = createClient(ServerReflection, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port.port}` }));
});
after(() => port.close(50));

type Ask = MessageInitShape<typeof ServerReflectionRequestSchema>["messageRequest"];

function question(messageRequest: Ask) {
  return create(ServerReflectionRequestSchema, {
    host: "h",
    ...(messageRequest === undefined ? {} : { messageRequest }),
  });
}

async function ask(...questions: Ask[]): Promise<ServerReflectionResponse["messageResponse"][]> {
  async function* requests() {
    for (const messageRequest of questions) yield question(messageRequest);
  }
  const answers = await Array.fromAsync(client.serverReflectionInfo(requests()));
  assert.ok(answers.every(({ validHost }) => validHost === "h"));
  return answers.map(({ messageResponse }) => messageResponse);
}

function filesOf(answer: ServerReflectionResponse["messageResponse"] | undefined) {
  assert.equal(answer?.case, "fileDescriptorResponse");
  const { fileDescriptorProto } = answer.value as { fileDescriptorProto: Uint8Array[] };
  return fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
}

function errorOf(answer: ServerReflectionResponse["messageResponse"] | undefined): number {
  assert.equal(answer?.case, "errorResponse");
  return (answer.value as { errorCode: number }).errorCode;
}

describe("reflection", () => {
  test("lists the services that it was given", async () => {
    const [answer] = await ask({ case: "listServices", value: "" });
    assert.equal(answer?.case, "listServicesResponse");
    const { service } = answer.value as { service: { name: string }[] };
    assert.deepEqual(
      service.map(({ name }) => name),
      SERVICES.map(({ typeName }) => typeName),
    );
  });

  test("finds the file of a service, a method, a message, a nested name, and with it every import", async () => {
    const symbols = [
      "agentmesh.tool.v1.ToolService",
      "agentmesh.tool.v1.ToolService.ListTools",
      "agentmesh.tool.v1.ListToolsRequest",
      "agentmesh.tool.v1.ListToolsRequest.page_size",
    ];
    const answers = await ask(...symbols.map((value) => ({ case: "fileContainingSymbol" as const, value })));
    for (const [index, answer] of answers.entries()) {
      const files = filesOf(answer);
      assert.equal(files[0]?.name, "agentmesh/tool/v1/tool_service.proto", symbols[index]);
      const names = new Set(files.map(({ name }) => name));
      assert.equal(names.size, files.length, "no file twice");
      for (const file of files) for (const dependency of file.dependency) assert.ok(names.has(dependency), dependency);
      // The answer alone makes a usable registry, options included.
      const byName = new Map(files.map((file) => [file.name, file]));
      assert.ok(files[0]);
      const registry = createFileRegistry(files[0], (name) => byName.get(name));
      const method = registry.getService("agentmesh.tool.v1.ToolService")?.method["listTools"];
      assert.ok(method !== undefined && hasOption(method, auth));
      assert.deepEqual(getOption(method, auth).anyScope, ["tools:read"]);
    }
  });

  test("finds a file by its name, and by an extension that it defines", async () => {
    const [byName, byExtension] = await ask(
      { case: "fileByFilename", value: "agentmesh/common/v1/auth_option.proto" },
      {
        case: "fileContainingExtension",
        value: { containingType: "google.protobuf.MethodOptions", extensionNumber: auth.number },
      },
    );
    assert.equal(filesOf(byName)[0]?.name, "agentmesh/common/v1/auth_option.proto");
    assert.equal(filesOf(byExtension)[0]?.name, "agentmesh/common/v1/auth_option.proto");
  });

  test("lists the extension numbers of a type", async () => {
    const [answer, none] = await ask(
      { case: "allExtensionNumbersOfType", value: "google.protobuf.MethodOptions" },
      { case: "allExtensionNumbersOfType", value: "agentmesh.tool.v1.Tool" },
    );
    assert.equal(answer?.case, "allExtensionNumbersResponse");
    const { baseTypeName, extensionNumber } = answer.value as { baseTypeName: string; extensionNumber: number[] };
    assert.equal(baseTypeName, "google.protobuf.MethodOptions");
    assert.ok(extensionNumber.includes(auth.number) && extensionNumber.includes(72295728), extensionNumber.join());
    assert.deepEqual((none as { value: { extensionNumber: number[] } }).value.extensionNumber, []);
  });

  test("what it does not know is NOT_FOUND in the answer, and the stream goes on", async () => {
    const answers = await ask(
      { case: "fileContainingSymbol", value: "nobody.v1.Service" },
      { case: "fileContainingSymbol", value: "" },
      { case: "fileByFilename", value: "../../etc/passwd" },
      {
        case: "fileContainingExtension",
        value: { containingType: "google.protobuf.MethodOptions", extensionNumber: 1 },
      },
      { case: "fileContainingExtension", value: { containingType: "nobody", extensionNumber: 1 } },
      { case: undefined },
      { case: "listServices", value: "*" },
    );
    assert.deepEqual(
      answers.slice(0, 5).map(errorOf),
      Array.from({ length: 5 }, () => Code.NotFound),
    );
    assert.equal(errorOf(answers[5]), Code.InvalidArgument);
    assert.equal(answers[6]?.case, "listServicesResponse");
  });

  test("shows nothing of services that it was not given", async () => {
    const [answer] = await ask({ case: "fileContainingSymbol", value: "agentmesh.auth.v1.ApiKeyService" });
    assert.equal(errorOf(answer), Code.NotFound);
  });
});

describe("a foreign gRPC client", () => {
  const raw = (bytes: Buffer) => bytes;

  function foreign() {
    return new grpc.Client(`127.0.0.1:${port.port}`, grpc.credentials.createInsecure());
  }

  for (const version of ["v1", "v1alpha"]) {
    test(`reads reflection ${version}`, async () => {
      const stub = foreign();
      const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
      const stream = stub.makeBidiStreamRequest(path, raw, raw);
      const answers: ServerReflectionResponse[] = [];
      const done = new Promise<grpc.StatusObject>((resolve) => stream.on("status", resolve));
      stream.on("data", (bytes: Buffer) => answers.push(fromBinary(ServerReflectionResponseSchema, bytes)));
      stream.on("error", () => {});
      const questions: Ask[] = [
        { case: "listServices", value: "" },
        { case: "fileContainingSymbol", value: "agentmesh.tool.v1.ToolService" },
      ];
      for (const messageRequest of questions) {
        stream.write(Buffer.from(toBinary(ServerReflectionRequestSchema, question(messageRequest))));
      }
      stream.end();
      assert.equal((await done).code, grpc.status.OK);
      assert.deepEqual(
        answers.map(({ messageResponse }) => messageResponse.case),
        ["listServicesResponse", "fileDescriptorResponse"],
      );
      assert.equal(filesOf(answers[1]?.messageResponse)[0]?.name, "agentmesh/tool/v1/tool_service.proto");
      stub.close();
    });
  }

  test("checks health, and is told which method it may not call without a credential", async () => {
    const stub = foreign();
    const unary = (path: string, body: Uint8Array) =>
      new Promise<Buffer>((resolve, reject) => {
        stub.makeUnaryRequest(path, raw, raw, Buffer.from(body), { deadline: Date.now() + 5000 }, (error, answer) =>
          error === null ? resolve(answer as Buffer) : reject(error),
        );
      });
    const request = toBinary(
      HealthCheckRequestSchema,
      create(HealthCheckRequestSchema, { service: ToolService.typeName }),
    );
    const answer = fromBinary(Health.method.check.output, await unary("/grpc.health.v1.Health/Check", request));
    assert.equal(answer.status, Status.SERVING);
    const unknown = toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service: "nobody" }));
    await assert.rejects(unary("/grpc.health.v1.Health/Check", unknown), { code: grpc.status.NOT_FOUND });
    await assert.rejects(unary("/agentmesh.tool.v1.ToolService/ListTools", new Uint8Array()), {
      code: grpc.status.UNIMPLEMENTED,
    });
    stub.close();
  });
});

test("reflection needs files that reach each other", () => {
  const files: DescFile[] = SERVICES.map(({ file }) => file);
  const registry = createRegistry(...files);
  for (const service of SERVICES) assert.ok(registry.getService(service.typeName));
});
