import assert from "node:assert/strict";
import { connect as connectHttp2, constants } from "node:http2";
import { connect as connectTcp } from "node:net";
import { describe, test } from "node:test";
import { create, createFileRegistry, type DescService } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { ErrorInfoSchema, RequestInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { callOf } from "./call.ts";
import { AppError, reasonOf } from "./errors.ts";
import { createLocalTransport } from "./local-transport.ts";
import { createPipeline, type PipelineOptions, STAGES } from "./pipeline.ts";
import { openPort } from "./port.ts";
import type { Principal } from "./principal.ts";
import { adapt, RecordedCalls, rejection, testPrincipal, until } from "./test-mesh.contract.ts";

interface Door extends AsyncDisposable {
  calls: RecordedCalls;
  steps: string[];
  port: number;
  client<S extends DescService>(service: S, carrier: "memory" | "grpc" | "connect"): ReturnType<typeof createClient<S>>;
}

const LIMITS = { readMaxBytes: 1000, writeMaxBytes: 5000, maxTimeoutMs: 60_000 };

/** A door whose caller is whatever `principal` says; every stage that it can see reports itself in `steps`. */
async function openDoor(
  options: {
    principal?: () => Principal;
    pipeline?: Partial<PipelineOptions>;
    routes?: (router: ConnectRouter) => void;
  } = {},
): Promise<Door> {
  const calls = new RecordedCalls();
  const steps: string[] = [];
  const principal = options.principal ?? (() => testPrincipal(["tools:read", "agents:run"]));
  const pipeline = createPipeline({
    identify: () => {
      steps.push("identify");
      return { requestId: "req_test", ip: "203.0.113.1", userAgent: "ua" };
    },
    async authenticate() {
      steps.push("authenticate");
      return principal();
    },
    allowInternal: true,
    validate: true,
    limits: LIMITS,
    observation: {
      begin: (info) => {
        steps.push("observe");
        return calls.begin(info);
      },
    },
    ...options.pipeline,
  });
  const routes = (router: ConnectRouter) => {
    router.service(ToolService, {
      listTools: (_, context) => {
        steps.push("handler");
        return { nextPageToken: callOf(context).principal.subject };
      },
      getTool: () => ({ tool: { description: "x".repeat(10_000) } }),
    });
    router.service(ToolExecutionService, {
      describeTools: () => ({}),
      async *executeTool(_, context) {
        steps.push("handler");
        await new Promise((_, reject) => context.signal.addEventListener("abort", () => reject(context.signal.reason)));
        yield {};
      },
    });
    router.service(Health, { check: () => ({}) });
    options.routes?.(router);
  };
  const port = await openPort({ host: "127.0.0.1", port: 0, listener: adapt(routes, pipeline) });
  const baseUrl = `http://127.0.0.1:${port.port}`;
  const transports = {
    memory: createLocalTransport(routes, pipeline),
    grpc: createGrpcTransport({ baseUrl }),
    connect: createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  };
  return {
    calls,
    steps,
    port: port.port,
    client: (service, carrier) => createClient(service, transports[carrier]),
    [Symbol.asyncDispose]: () => port.close(50),
  };
}

const unauthenticated = () => {
  throw new AppError({ code: Code.Unauthenticated, reason: "CREDENTIAL_INVALID", message: "no" });
};

async function refused(promise: PromiseLike<unknown>): Promise<{ code: string; reason: string | undefined }> {
  const error = await rejection(promise);
  assert.ok(error instanceof ConnectError, String(error));
  assert.deepEqual(
    error.findDetails(RequestInfoSchema).map(({ requestId }) => requestId),
    ["req_test"],
  );
  assert.equal(error.findDetails(ErrorInfoSchema).length, 1);
  return { code: Code[error.code], reason: reasonOf(error) };
}

/** A service whose method lacks the auth option. */
function undeclaredService(): DescService {
  const file = create(FileDescriptorProtoSchema, {
    name: "undeclared.proto",
    package: "undeclared",
    syntax: "proto3",
    messageType: [{ name: "Nothing" }],
    service: [
      { name: "S", method: [{ name: "M", inputType: ".undeclared.Nothing", outputType: ".undeclared.Nothing" }] },
    ],
  });
  const service = createFileRegistry(file, () => undefined).getService("undeclared.S");
  assert.ok(service);
  return service;
}

for (const carrier of ["memory", "grpc", "connect"] as const) {
  describe(`pipeline over ${carrier}`, () => {
    test("a call passes the stages in the order of STAGES", async () => {
      await using door = await openDoor();
      await door.client(ToolService, carrier).listTools({});
      // Authorize and validate have no hook; the next test asserts their places.
      const visible = STAGES.map(({ name }) => name).filter((name) => !["authorize", "validate"].includes(name));
      assert.deepEqual([...door.steps].sort(), [...visible].sort());
      assert.deepEqual(
        door.steps.filter((step) => step !== "observe"),
        ["identify", "authenticate", "handler"],
      );
    });

    test("of several stages that would refuse, the outermost one does, and the call is counted once", async () => {
      const noScope = () => testPrincipal(["kb:read"]);
      const invalid = { pageSize: -1 };
      const cases = [
        { stage: "authenticate", principal: unauthenticated, request: invalid, reason: "CREDENTIAL_INVALID" },
        { stage: "authorize", principal: noScope, request: invalid, reason: "SCOPE_MISSING" },
        { stage: "validate", request: invalid, reason: "FIELD_INVALID" },
        { stage: "handler", request: {}, reason: undefined },
      ];
      assert.deepEqual(
        STAGES.map(({ name }) => name),
        ["identify", "observe", ...cases.map(({ stage }) => stage)],
      );
      for (const { stage, principal, request, reason } of cases) {
        await using door = await openDoor(principal === undefined ? {} : { principal });
        const call = door.client(ToolService, carrier).listTools(request);
        if (reason === undefined) await call;
        else assert.equal((await refused(call)).reason, reason);
        assert.equal(door.steps.includes("handler"), stage === "handler", stage);
        const end = await door.calls.endOf("ListTools");
        assert.deepEqual([door.calls.begun, end.reason, end.requestId], [1, reason, "req_test"], stage);
        assert.equal(end.tenantId === undefined, stage === "authenticate" || stage === "authorize");
      }
    });

    test("an answer and a refusal both carry the request id", async () => {
      for (const principal of [() => testPrincipal(["tools:read"]), unauthenticated]) {
        await using door = await openDoor({ principal });
        const header = Promise.withResolvers<Headers>();
        await door
          .client(ToolService, carrier)
          .listTools({}, { onHeader: header.resolve })
          .catch((error: ConnectError) => header.resolve(error.metadata));
        assert.equal((await header.promise).get("x-request-id"), "req_test");
      }
    });

    test("an INTERNAL method does not exist at a door that allows none, whoever asks", async () => {
      await using door = await openDoor({ pipeline: { allowInternal: false } });
      const client = door.client(ToolExecutionService, carrier);
      const expected = { code: "Unimplemented", reason: "ROUTE_NOT_FOUND" };
      assert.deepEqual(await refused(client.describeTools({})), expected);
      assert.deepEqual(await refused(client.executeTool({ tool: "t" })[Symbol.asyncIterator]().next()), expected);
      assert.deepEqual(door.steps, ["identify", "observe", "identify", "observe"], "not even authentication ran");
      await door.client(ToolService, carrier).listTools({});
    });

    test("a method that declares no auth option is refused", async () => {
      const service = undeclaredService();
      await using door = await openDoor({ routes: (router) => router.service(service, { m: () => ({}) } as object) });
      const client = door.client(service, carrier) as unknown as { m(request: object): Promise<object> };
      assert.deepEqual(await refused(client.m({})), { code: "Unimplemented", reason: "ROUTE_NOT_FOUND" });
      assert.deepEqual(door.steps, ["identify", "observe"]);
    });

    test("an unknown method is UNIMPLEMENTED", async () => {
      const other = undeclaredService();
      await using door = await openDoor();
      const client = door.client(other, carrier) as unknown as { m(request: object): Promise<object> };
      const error = await rejection(client.m({}));
      assert.ok(error instanceof ConnectError);
      assert.equal(Code[error.code], "Unimplemented");
    });

    test("health needs no credential", async () => {
      await using door = await openDoor({ principal: unauthenticated });
      await door.client(Health, carrier).check({});
      assert.ok(!door.steps.includes("authenticate"));
    });

    test("what the library refuses between gate and handler is mapped and counted too", async () => {
      await using door = await openDoor();
      const large = { pageToken: "x".repeat(LIMITS.readMaxBytes + 1) };
      assert.deepEqual(await refused(door.client(ToolService, carrier).listTools(large)), {
        code: "ResourceExhausted",
        reason: "PAYLOAD_TOO_LARGE",
      });
      const end = await door.calls.endOf("ListTools");
      assert.deepEqual([end.code, end.reason], ["resource_exhausted", "PAYLOAD_TOO_LARGE"]);
      assert.ok(end.tenantId, "the caller was known by then");
      const stream = door.client(ToolExecutionService, carrier).executeTool({ argumentsJson: large.pageToken });
      assert.equal((await refused(stream[Symbol.asyncIterator]().next())).reason, "PAYLOAD_TOO_LARGE");
      assert.equal((await door.calls.endOf("ExecuteTool")).code, "resource_exhausted");
      assert.equal(door.calls.begun, door.calls.ended.length);
    });

    test("an answer that is too large is refused, not sent", async () => {
      await using door = await openDoor();
      const error = await rejection(door.client(ToolService, carrier).getTool({ toolId: "x" }));
      assert.ok(error instanceof ConnectError);
      assert.equal(Code[error.code], "ResourceExhausted");
    });

    test("a deadline above the door's limit is refused", async () => {
      await using door = await openDoor();
      const { code } = await refused(
        door.client(ToolService, carrier).listTools({}, { timeoutMs: LIMITS.maxTimeoutMs + 1000 }),
      );
      assert.equal(code, "InvalidArgument");
    });

    test("a shutdown ends the calls of the door with its own reason", async () => {
      const shutdown = new AbortController();
      await using door = await openDoor({ pipeline: { shutdown: shutdown.signal } });
      const stream = door.client(ToolExecutionService, carrier).executeTool({ tool: "t", callId: "c" });
      const ended = refused(stream[Symbol.asyncIterator]().next());
      await until(() => door.steps.includes("handler"), "the handler");
      shutdown.abort(new AppError({ code: Code.Unavailable, reason: "STREAM_DRAINING", message: "Reconnect." }));
      assert.deepEqual(await ended, { code: "Unavailable", reason: "STREAM_DRAINING" });
      assert.equal((await door.calls.endOf("ExecuteTool")).reason, "STREAM_DRAINING");
    });
  });
}

describe("a refusal", () => {
  test("comes before the body is read: HTTP/1.1, headers only", async () => {
    await using door = await openDoor({ principal: unauthenticated });
    const socket = connectTcp(door.port, "127.0.0.1");
    socket.write(
      "POST /agentmesh.tool.v1.ToolService/ListTools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
        "Content-Length: 100\r\n\r\n",
    );
    const [answer] = (await Promise.race([
      new Promise((resolve) => socket.once("data", (data) => resolve([data]))),
      new Promise((_, reject) => setTimeout(() => reject(new Error("no answer without the body")), 5000).unref()),
    ])) as [Buffer];
    assert.match(answer.toString(), /^HTTP\/1\.1 401 /);
    socket.destroy();
    assert.equal((await door.calls.endOf("ListTools")).code, "unauthenticated");
  });

  test("comes before the body is read: gRPC over HTTP/2, headers only", async () => {
    await using door = await openDoor({ principal: () => testPrincipal(["kb:read"]) });
    const session = connectHttp2(`http://127.0.0.1:${door.port}`);
    const stream = session.request(
      {
        ":method": "POST",
        ":path": "/agentmesh.tool.v1.ToolExecutionService/ExecuteTool",
        "content-type": "application/grpc",
        te: "trailers",
      },
      { endStream: false },
    );
    const status = new Promise<string>((resolve, reject) => {
      const look = (headers: Record<string, unknown>) => {
        const value = headers["grpc-status"];
        if (value !== undefined) resolve(String(value));
      };
      stream.on("response", look);
      stream.on("trailers", look);
      stream.on("error", reject);
      stream.resume();
      setTimeout(() => reject(new Error("no answer without the body")), 5000).unref();
    });
    assert.equal(await status, String(Code.PermissionDenied));
    stream.close(constants.NGHTTP2_CANCEL);
    session.destroy();
  });

  test("of a malformed body says so, names no internals, and is counted", async () => {
    await using door = await openDoor();
    const url = `http://127.0.0.1:${door.port}/agentmesh.tool.v1.ToolService/ListTools`;
    for (const body of ["{", '{"pageSize":"many"}', "[]", '"x"', "\u0000", '{"pageSize":1']) {
      door.calls.ended.length = 0;
      const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
      assert.equal(response.status, 400, body);
      const answer = (await response.json()) as { code: string; details: { type: string }[] };
      assert.equal(answer.code, "invalid_argument");
      assert.deepEqual(
        answer.details.map(({ type }) => type),
        ["google.rpc.ErrorInfo", "google.rpc.RequestInfo"],
      );
      const end = await door.calls.endOf("ListTools");
      assert.deepEqual([end.code, end.reason], ["invalid_argument", "BODY_MALFORMED"]);
    }
  });

  test("of a caller who leaves in the middle of the body is counted once", async () => {
    await using door = await openDoor();
    const socket = connectTcp(door.port, "127.0.0.1");
    socket.write(
      "POST /agentmesh.tool.v1.ToolService/ListTools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
        'Content-Length: 100\r\n\r\n{"page',
    );
    await until(() => door.steps.includes("authenticate"), "authentication");
    socket.destroy();
    assert.equal((await door.calls.endOf("ListTools")).error instanceof Error, true);
    assert.ok(!door.steps.includes("handler"));
  });
});
