import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { after, before, describe, mock, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import { type Call, callOf, onward, withSignal } from "./call.ts";
import { factsOf, reasonOf } from "./errors.ts";
import { createHopVerifier } from "./hop-token.ts";
import { createLinks } from "./links.ts";
import { createLocalTransport } from "./local-transport.ts";
import { openPort } from "./port.ts";
import { createServicePipeline } from "./service-pipeline.ts";
import {
  adapt,
  CARRIERS,
  openTestMesh,
  RecordedCalls,
  rejection,
  type TestModule,
  testCall,
  until,
} from "./test-mesh.contract.ts";

/** Long enough for a call to pass two hops on a busy machine. */
const DEADLINE_MS = 1_000;

/** The first hop: unary and streamed, it hands every call on to ResolutionService. */
const front: TestModule = {
  services: [ToolExecutionService],
  routes: (router, links) =>
    router.service(ToolExecutionService, {
      async describeTools(_, context) {
        await links.to(ResolutionService).resolveAgent({}, onward(callOf(context)));
        return {};
      },
      async *executeTool(_, context) {
        await links.to(ResolutionService).resolveAgent({}, onward(callOf(context)));
        yield {};
      },
    }),
};

/** The second hop, which waits for its signal. */
function waiting() {
  const seen: Call[] = [];
  const aborted: unknown[] = [];
  /** Milliseconds until the deadline, as the second hop saw it. */
  const left: (number | undefined)[] = [];
  const module: TestModule = {
    services: [ResolutionService],
    routes: (router) =>
      router.service(ResolutionService, {
        async resolveAgent(_, context) {
          seen.push(callOf(context));
          left.push(context.timeoutMs());
          await sleep(60_000, undefined, { signal: context.signal }).catch((error) => {
            aborted.push(context.signal.reason);
            throw error;
          });
          return {};
        },
      }),
  };
  return { module, seen, aborted, left };
}

function connectError(error: unknown): ConnectError {
  assert.ok(error instanceof ConnectError, String(error));
  return error;
}

for (const carrier of CARRIERS) {
  describe(`links over the ${carrier} carrier`, () => {
    test("a deadline passes two hops, becomes shorter, and ends both calls as DEADLINE_EXCEEDED", async () => {
      const far = waiting();
      await using mesh = await openTestMesh(carrier, { tool: front, config: far.module });
      const call = testCall(["agents:run"], { deadline: Date.now() + DEADLINE_MS });
      const error = connectError(
        await rejection(mesh.links("edge").to(ToolExecutionService).describeTools({}, onward(call))),
      );
      assert.equal(Code[error.code], "DeadlineExceeded");
      await until(() => mesh.calls.ended.length === 2, "both ends");
      // A process learns of the deadline by its own timer or by the reset of the stream, whichever comes first.
      for (const { code } of mesh.calls.ended) assert.match(code, /^(deadline_exceeded|canceled)$/);
      assert.ok((far.left[0] ?? Number.NaN) <= DEADLINE_MS, String(far.left));
      assert.equal(far.aborted.length, 1);
    });

    test("an abort passes two hops, unary and streamed", async () => {
      const far = waiting();
      await using mesh = await openTestMesh(carrier, { tool: front, config: far.module });
      const client = mesh.links("edge").to(ToolExecutionService);
      const calls = [
        (call: Call) => client.describeTools({}, onward(call)),
        (call: Call) => client.executeTool({ tool: "t", callId: "c" }, onward(call))[Symbol.asyncIterator]().next(),
      ];
      for (const [index, start] of calls.entries()) {
        const leave = new AbortController();
        const failed = rejection(start(testCall(["agents:run"], { signal: leave.signal })));
        await until(() => far.seen.length === index + 1, "the second hop");
        leave.abort();
        assert.equal(Code[connectError(await failed).code], "Canceled");
        await until(() => far.aborted.length === index + 1, "the abort of the second hop");
        await until(() => mesh.calls.ended.length === 2 * (index + 1), "both ends");
      }
      assert.deepEqual(new Set(mesh.calls.ended.map(({ code }) => code)), new Set(["canceled"]));
    });

    test("principal, request id and the client's address arrive, with every hop as an actor", async () => {
      const seen: Call[] = [];
      await using mesh = await openTestMesh(carrier, {
        tool: front,
        config: {
          services: [ResolutionService],
          routes: (router) =>
            router.service(ResolutionService, {
              resolveAgent(_, context) {
                seen.push(callOf(context));
                return {};
              },
            }),
        },
      });
      const call = testCall(["agents:run"], { ip: "2001:db8::7", userAgent: "curl/8 «ünïcode»\t%00" });
      const header = Promise.withResolvers<Headers>();
      const options = { ...onward(call), onHeader: header.resolve };
      await mesh.links("edge").to(ToolExecutionService).describeTools({}, options);
      const [far] = seen;
      assert.deepEqual(
        { ...far?.principal, userId: undefined },
        { ...call.principal, actors: ["edge", "tool"], userId: undefined },
      );
      assert.deepEqual([far?.requestId, far?.ip, far?.userAgent], [call.requestId, call.ip, call.userAgent]);
      assert.equal((await header.promise).get("x-request-id"), call.requestId);
    });

    test("a caller cannot give itself another principal, address or request id in the headers of a call", async () => {
      const seen: Call[] = [];
      await using mesh = await openTestMesh(carrier, {
        config: {
          services: [ResolutionService],
          routes: (router) =>
            router.service(ResolutionService, {
              resolveAgent(_, context) {
                seen.push(callOf(context));
                return {};
              },
            }),
        },
      });
      const call = testCall(["agents:run"]);
      await mesh
        .links("edge")
        .to(ResolutionService)
        .resolveAgent(
          {},
          {
            ...onward(call),
            headers: { authorization: "Bearer x", "x-request-id": "forged", "agentmesh-client-ip": "10.0.0.1" },
          },
        );
      assert.deepEqual([seen[0]?.requestId, seen[0]?.ip], [call.requestId, call.ip]);
      assert.equal(seen[0]?.principal.tenantId, call.principal.tenantId);
    });

    test("a call without onward() is refused before anything is sent", async () => {
      await using mesh = await openTestMesh(carrier, { tool: front });
      const error = await rejection(mesh.links("edge").to(ToolExecutionService).describeTools({}));
      assert.match(String(error), /without onward/);
      assert.equal(mesh.calls.begun, 0);
    });

    test("a module that cannot be reached is UNAVAILABLE DEPENDENCY_DOWN, at once, and tells no address", async () => {
      const closed = createServer().listen(0, "127.0.0.1");
      await once(closed, "listening");
      const { port } = closed.address() as { port: number };
      closed.close();
      await once(closed, "close");
      await using mesh = await openTestMesh(
        carrier,
        { tool: front },
        { addresses: { config: `http://127.0.0.1:${port}` } },
      );
      const client = mesh.links("edge").to(ToolExecutionService);
      for (let attempt = 0; attempt < 3; attempt++) {
        // The deadline is far above what the test may take: an attempt that waits for it fails the test.
        const call = testCall(["agents:run"], { deadline: Date.now() + 600_000 });
        const error = connectError(await rejection(client.describeTools({}, onward(call))));
        assert.deepEqual([Code[error.code], reasonOf(error)], ["Unavailable", "DEPENDENCY_DOWN"]);
        assert.doesNotMatch(error.message, /127\.0\.0\.1|ECONN/);
        assert.doesNotMatch(JSON.stringify(factsOf(error)), /127\.0\.0\.1/);
      }
    });
  });
}

describe("a link to another process", () => {
  before(() => void mock.method(console, "error", () => {}));
  after(() => mock.restoreAll());

  test("that dies in the middle of a call fails that call as UNAVAILABLE, and the next one finds the new process", async () => {
    const keysOf = await openTestMesh("grpc", { tool: front }, { addresses: { config: "http://unused.invalid" } });
    const pipeline = createServicePipeline({
      verifier: createHopVerifier(["config"], keysOf.keys),
      observation: new RecordedCalls(),
    });
    let reached = 0;
    let wait = true;
    const listener = adapt(
      (router) =>
        router.service(ResolutionService, {
          async resolveAgent(_, context: HandlerContext) {
            reached += 1;
            if (wait) await sleep(60_000, undefined, { signal: context.signal });
            return {};
          },
        }),
      pipeline,
    );
    const first = await openPort({ host: "127.0.0.1", port: 0, listener });
    await using mesh = keysOf;
    const links = createLinks({
      caller: "edge",
      signer: mesh.signer("edge"),
      moduleOf: () => "config",
      local: () => undefined,
      address: () => `http://127.0.0.1:${first.port}`,
      ownAddress: "",
      injectTrace: () => {},
    });
    // A service in between, as errors are mapped where they are passed on.
    const between = createLocalTransport(
      (router) =>
        router.service(ToolExecutionService, {
          async describeTools(_, context) {
            await links.to(ResolutionService).resolveAgent({}, onward(callOf(context)));
            return {};
          },
        }),
      createServicePipeline({ verifier: createHopVerifier(["tool"], mesh.keys), observation: new RecordedCalls() }),
    );
    const edge = createLinks({
      caller: "edge",
      signer: mesh.signer("edge"),
      moduleOf: () => "tool",
      local: () => between,
      address: () => undefined,
      ownAddress: "",
      injectTrace: () => {},
    });
    const failed = rejection(edge.to(ToolExecutionService).describeTools({}, onward(testCall(["agents:run"]))));
    await until(() => reached === 1, "the call");
    await first.close(0);
    const error = connectError(await failed);
    assert.deepEqual([Code[error.code], reasonOf(error)], ["Unavailable", "DEPENDENCY_DOWN"]);
    wait = false;
    const second = await openPort({ host: "127.0.0.1", port: first.port, listener });
    await edge.to(ToolExecutionService).describeTools({}, onward(testCall(["agents:run"])));
    assert.equal(reached, 2);
    await links.close();
    await second.close(100);
  });

  test("that dies in the middle of a stream fails the stream as UNAVAILABLE", async () => {
    const mesh = await openTestMesh("grpc", {
      agent: {
        services: [RunTailService],
        routes: (router) =>
          router.service(RunTailService, {
            async *tailRun(_, context) {
              yield {};
              await sleep(60_000, undefined, { signal: context.signal });
            },
          }),
      },
    });
    const stream = mesh
      .links("edge")
      .to(RunTailService)
      .tailRun({ runId: "run_1" }, onward(testCall(["agents:run"])));
    const reader = stream[Symbol.asyncIterator]();
    assert.equal((await reader.next()).done, false);
    const failed = rejection(reader.next());
    await mesh.stop("agent");
    const error = await failed;
    assert.deepEqual([reasonOf(error), factsOf(error)], ["DEPENDENCY_DOWN", { dependency: "agent" }]);
    await mesh[Symbol.asyncDispose]();
  });

  // About one connection in ten that closes after GOAWAY leaves its stream without an error.
  test("fails a call whenever its connection closes, also between GOAWAY and the answer", async () => {
    const far = waiting();
    for (let moment = 0; moment < 40; moment++) {
      await using mesh = await openTestMesh("grpc", { config: far.module });
      const call = testCall(["agents:run"], { deadline: Date.now() + 10_000 });
      const failed = rejection(mesh.links("edge").to(ResolutionService).resolveAgent({}, onward(call)));
      await sleep(moment / 2);
      await mesh.stop("config");
      assert.equal(reasonOf(await failed), "DEPENDENCY_DOWN", `closed after ${moment / 2} ms`);
    }
  });

  test("that accepts and never answers is bounded by the deadline", async () => {
    const sockets: Socket[] = [];
    const deaf = createServer((socket) => sockets.push(socket.on("error", () => {}))).listen(0, "127.0.0.1");
    await once(deaf, "listening");
    const { port } = deaf.address() as { port: number };
    await using mesh = await openTestMesh(
      "grpc",
      { tool: front },
      { addresses: { config: `http://127.0.0.1:${port}` } },
    );
    const call = testCall(["agents:run"], { deadline: Date.now() + 150 });
    const error = connectError(
      await rejection(mesh.links("edge").to(ToolExecutionService).describeTools({}, onward(call))),
    );
    assert.equal(Code[error.code], "DeadlineExceeded");
    for (const socket of sockets) socket.destroy();
    deaf.close();
  });

  test("has no address: UNAVAILABLE that names the module", async () => {
    await using mesh = await openTestMesh("grpc", { tool: front });
    const error = await rejection(
      mesh
        .links("edge")
        .to(ResolutionService)
        .resolveAgent({}, onward(testCall([]))),
    );
    assert.equal(reasonOf(error), "DEPENDENCY_DOWN");
    assert.deepEqual(factsOf(error), { dependency: "nobody" });
  });
});

describe("a replica by its address", () => {
  test("is reached in memory when it is this process, and over its port when it is another", async () => {
    const calls = new RecordedCalls();
    await using mesh = await openTestMesh("grpc", {
      agent: {
        services: [RunTailService],
        routes: (router) => router.service(RunTailService, { cancelOwnedRun: () => ({ terminalSeq: 7n }) }),
      },
    });
    const local = createLocalTransport(
      (router) => router.service(RunTailService, { cancelOwnedRun: () => ({ terminalSeq: 1n }) }),
      createServicePipeline({ verifier: createHopVerifier(["agent"], mesh.keys), observation: calls }),
    );
    const traced: Headers[] = [];
    const links = createLinks({
      caller: "edge",
      signer: mesh.signer("edge"),
      moduleOf: () => "agent",
      local: () => local,
      address: () => undefined,
      ownAddress: "http://10.0.0.1:1",
      injectTrace: (header) => void traced.push(header),
    });
    const cancel = (address: string) =>
      links.at(RunTailService, address).cancelOwnedRun({ runId: "run_1" }, onward(testCall(["agents:run"])));
    assert.equal((await cancel("http://10.0.0.1:1")).terminalSeq, 1n);
    assert.equal((await cancel(mesh.address("agent"))).terminalSeq, 7n);
    assert.equal(calls.begun, 1);
    assert.equal(traced.length, 2, "both calls carry the trace");
    await links.close();
  });
});

describe("onward", () => {
  test("shortens the deadline and never lengthens it", () => {
    const timeoutOf = (deadlineMs: number | undefined, timeoutMs?: number) =>
      onward(testCall([], { deadline: deadlineMs === undefined ? undefined : Date.now() + deadlineMs }), timeoutMs)
        .timeoutMs;
    assert.equal(timeoutOf(undefined), undefined);
    assert.equal(timeoutOf(undefined, 500), 500);
    assert.equal(timeoutOf(10_000, 500), 500);
    const left = timeoutOf(400, 5_000) ?? 0;
    assert.ok(left > 300 && left <= 400, String(left));
    assert.equal(timeoutOf(-1000), 1, "a deadline that has passed is not an endless call");
  });

  test("withSignal keeps the principal and replaces signal and deadline", () => {
    const call = testCall(["agents:run"], { deadline: 5 });
    const { signal } = new AbortController();
    const detached = withSignal(call, signal);
    assert.deepEqual([detached.principal, detached.signal, detached.deadline], [call.principal, signal, undefined]);
  });
});
