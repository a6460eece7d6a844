import assert from "node:assert/strict";
import { after, before, describe, mock, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { OpenItemsSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import {
  RunTailService,
  type TailRunRequest,
  type TailRunResponse,
} from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { type GetToolResponse, GetToolResponseSchema, ToolService } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { ErrorInfoSchema, RequestInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { ServerReflection, ServerReflectionRequestSchema } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { onward } from "./call.ts";
import { AppError } from "./errors.ts";
import { CARRIERS, openTestMesh, rejection, type TestModule, testCall, until } from "./test-mesh.contract.ts";

const ASKED = { toolId: "todo" };
const RUN = { runId: "run_1" };
const call = (more: Parameters<typeof testCall>[1] = {}) => onward(testCall(["tools:read", "agents:run"], more));

const toolWith = (
  getTool: (request: { toolId: string }, context: HandlerContext) => Promise<object> | object,
): TestModule => ({
  services: [ToolService],
  routes: (router) => router.service(ToolService, { getTool }),
});
const tailWith = (
  tailRun: (request: TailRunRequest, context: HandlerContext) => AsyncIterable<object>,
): TestModule => ({
  services: [RunTailService],
  routes: (router) => router.service(RunTailService, { tailRun }),
});
const reflectionWith = (
  serverReflectionInfo: (requests: AsyncIterable<{ host: string }>, context: HandlerContext) => AsyncIterable<object>,
): TestModule => ({
  services: [ServerReflection],
  routes: (router) => router.service(ServerReflection, { serverReflectionInfo }),
});
const failing = (error: unknown) => {
  throw error;
};

/** Never settles, and does not look at any signal. */
const never = () => new Promise<never>(() => {});

for (const carrier of CARRIERS) {
  describe(`the ${carrier} carrier`, () => {
    // Connect's adapter writes to the console when a caller leaves in the middle of a write.
    before(() => void mock.method(console, "error", () => {}));
    after(() => mock.restoreAll());

    test("shares no message: what a caller changes in an answer is not changed for others", async () => {
      const kept = create(GetToolResponseSchema, { tool: { name: "todo", permissions: ["a"] } });
      await using mesh = await openTestMesh(carrier, { tool: toolWith(() => kept) });
      const client = mesh.links("edge").to(ToolService);
      const first: GetToolResponse = await client.getTool(ASKED, call());
      assert.deepEqual(first.tool?.permissions, ["a"]);
      first.tool?.permissions.push("forged");
      if (first.tool !== undefined) first.tool.name = "forged";
      const second = await client.getTool(ASKED, call());
      assert.deepEqual([second.tool?.name, second.tool?.permissions], ["todo", ["a"]]);
      assert.deepEqual(kept.tool?.permissions, ["a"]);
    });

    test("shares no message of a stream, nor a message inside a new one", async () => {
      const value = create(OpenItemsSchema, { items: [{ itemId: "msg_1" }] });
      const module = tailWith(async function* () {
        yield { frame: { case: "openItems", value } };
        yield { frame: { case: "openItems", value } };
      });
      await using mesh = await openTestMesh(carrier, { agent: module });
      const seen: string[] = [];
      for await (const { frame } of mesh.links("edge").to(RunTailService).tailRun(RUN, call())) {
        assert.equal(frame.case, "openItems");
        if (frame.case !== "openItems") continue;
        for (const item of frame.value.items) {
          seen.push(item.itemId);
          item.itemId = "forged";
        }
      }
      assert.deepEqual(seen, ["msg_1", "msg_1"]);
      assert.equal(value.items[0]?.itemId, "msg_1");
    });

    test("shares no request: neither end sees what the other does to it", async () => {
      const go = Promise.withResolvers<void>();
      const seen: (string | undefined)[] = [];
      const module = reflectionWith(async function* (requests) {
        for await (const request of requests) {
          await go.promise;
          seen.push(request.host);
          request.host = "of the handler";
          yield {};
        }
      });
      await using mesh = await openTestMesh(carrier, { reflection: module });
      const request = create(ServerReflectionRequestSchema, { host: "of the caller" });
      const asked = Promise.withResolvers<void>();
      async function* requests() {
        yield request;
        asked.resolve();
      }
      const answers = mesh.links("edge").to(ServerReflection).serverReflectionInfo(requests(), call());
      const reading = answers[Symbol.asyncIterator]().next();
      if (carrier === "grpc") await asked.promise;
      else await until(() => mesh.calls.begun === 1, "the call");
      await new Promise((resolve) => setTimeout(resolve, 20));
      request.host = "changed";
      go.resolve();
      await reading;
      assert.deepEqual([seen, request.host], [["of the caller"], "changed"]);
    });

    test("carries text as UTF-8 does, both ways and in streams", async () => {
      const seen: string[] = [];
      await using mesh = await openTestMesh(carrier, {
        tool: toolWith(({ toolId }) => {
          seen.push(toolId);
          return { tool: { name: "\ud800a" } };
        }),
        agent: tailWith(async function* () {
          yield { frame: { case: "openItems", value: { items: [{ itemId: "b\udc00" }] } } };
        }),
      });
      const answer = await mesh.links("edge").to(ToolService).getTool({ toolId: "\udc00x" }, call());
      assert.deepEqual([seen, answer.tool?.name], [["\ufffdx"], "\ufffda"]);
      for await (const { frame } of mesh.links("edge").to(RunTailService).tailRun(RUN, call())) {
        assert.deepEqual(frame.case === "openItems" ? frame.value.items[0]?.itemId : undefined, "b\ufffd");
      }
    });

    test("delivers an error with all its details and nothing else of the handler's", async () => {
      const cause = new Error("secret of the callee");
      const failure = new AppError({
        code: Code.ResourceExhausted,
        reason: "RATE_LIMITED",
        message: "Too many.",
        facts: { limit: "key" },
        retryAfterMs: 1500,
        cause,
      });
      await using mesh = await openTestMesh(carrier, {
        tool: toolWith(() => failing(failure)),
        agent: tailWith(async function* () {
          yield {};
          failing(failure);
        }),
      });
      const request = testCall(["tools:read", "agents:run"]);
      const reader = mesh.links("edge").to(RunTailService).tailRun(RUN, onward(request))[Symbol.asyncIterator]();
      await reader.next();
      for (const error of [
        await rejection(mesh.links("edge").to(ToolService).getTool(ASKED, onward(request))),
        await rejection(reader.next()),
      ]) {
        assert.ok(error instanceof ConnectError);
        assert.deepEqual([error.code, error.rawMessage, error.cause], [Code.ResourceExhausted, "Too many.", undefined]);
        const [info] = error.findDetails(ErrorInfoSchema);
        assert.deepEqual([info?.reason, info?.metadata], ["RATE_LIMITED", { limit: "key" }]);
        assert.equal(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 1n);
        assert.equal(error.findDetails(RequestInfoSchema)[0]?.requestId, request.requestId);
        assert.ok(error.details.every((detail) => "type" in detail && detail.value instanceof Uint8Array));
        assert.doesNotMatch(String(error.stack), /secret of the callee/);
      }
    });

    test("delivers headers and trailers; a header after the first message comes too late", async () => {
      await using mesh = await openTestMesh(carrier, {
        tool: toolWith((_, context) => {
          context.responseHeader.set("x-early", "1");
          context.responseTrailer.set("x-last", "2");
          return {};
        }),
        agent: tailWith(async function* (_, context) {
          context.responseHeader.set("x-early", "1");
          yield {};
          context.responseHeader.set("x-late", "1");
          context.responseTrailer.set("x-last", "2");
          yield {};
        }),
      });
      const seen = new Map<string, Headers>();
      const see = (name: string) => ({
        onHeader: (header: Headers) => void seen.set(`${name} header`, header),
        onTrailer: (trailer: Headers) => void seen.set(`${name} trailer`, trailer),
      });
      await mesh
        .links("edge")
        .to(ToolService)
        .getTool(ASKED, { ...call(), ...see("unary") });
      const stream = mesh
        .links("edge")
        .to(RunTailService)
        .tailRun(RUN, { ...call(), ...see("stream") });
      for await (const _ of stream);
      for (const name of ["unary", "stream"]) {
        assert.equal(seen.get(`${name} header`)?.get("x-early"), "1");
        assert.equal(seen.get(`${name} trailer`)?.get("x-last"), "2");
      }
      assert.equal(seen.get("stream header")?.get("x-late"), null);
    });

    test("does not wait for a handler that looks at no signal", async () => {
      await using mesh = await openTestMesh(carrier, {
        tool: toolWith(never),
        agent: tailWith(async function* () {
          yield {};
          await never();
        }),
      });
      const links = mesh.links("edge");
      const late = (error: unknown) => (error as ConnectError).code === Code.DeadlineExceeded;
      const soon = () => call({ deadline: Date.now() + 150 });
      assert.ok(late(await rejection(links.to(ToolService).getTool(ASKED, soon()))));
      const reader = links.to(RunTailService).tailRun(RUN, soon())[Symbol.asyncIterator]();
      await reader.next();
      assert.ok(late(await rejection(reader.next())));
      const leave = new AbortController();
      const left = rejection(links.to(ToolService).getTool(ASKED, call({ signal: leave.signal })));
      await until(() => mesh.calls.begun === 3, "the call");
      leave.abort();
      assert.equal(((await left) as ConnectError).code, Code.Canceled);
    });

    test("does not call a handler for a caller that has left already", async () => {
      await using mesh = await openTestMesh(carrier, {
        tool: toolWith(() => ({})),
        agent: tailWith(async function* () {}),
      });
      const links = mesh.links("edge");
      const gone = () => call({ signal: AbortSignal.abort() });
      const read = () => links.to(RunTailService).tailRun(RUN, gone())[Symbol.asyncIterator]().next();
      for (const ask of [() => links.to(ToolService).getTool(ASKED, gone()), read]) {
        assert.equal(((await rejection(ask())) as ConnectError).code, Code.Canceled);
      }
      assert.equal(mesh.calls.begun, 0);
    });

    test("returns the caller's generator, and wakes the handler, when the caller leaves a two-way stream", async () => {
      const steps: string[] = [];
      await using mesh = await openTestMesh(carrier, {
        reflection: reflectionWith(async function* (requests) {
          try {
            for await (const { host } of requests) yield { validHost: host };
          } finally {
            steps.push("handler");
          }
        }),
      });
      const leave = new AbortController();
      async function* requests() {
        try {
          for (;;) {
            yield { host: "x" };
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
        } finally {
          steps.push("caller");
        }
      }
      const answers = mesh
        .links("edge")
        .to(ServerReflection)
        .serverReflectionInfo(requests(), call({ signal: leave.signal }));
      const reader = answers[Symbol.asyncIterator]();
      assert.equal((await reader.next()).value?.validHost, "x");
      leave.abort();
      assert.equal(((await rejection(reader.next())) as ConnectError).code, Code.Canceled);
      await until(() => steps.length === 2, "both finally blocks");
    });

    test("ends a two-way stream when the handler has enough, and returns the caller's generator", async () => {
      let returned = false;
      await using mesh = await openTestMesh(carrier, {
        reflection: reflectionWith(async function* (requests) {
          await requests[Symbol.asyncIterator]().next();
          yield { validHost: "enough" };
        }),
      });
      async function* requests() {
        try {
          for (;;) {
            yield { host: "x" };
            await new Promise((resolve) => setTimeout(resolve, 5));
          }
        } finally {
          returned = true;
        }
      }
      const seen: string[] = [];
      const answers = mesh.links("edge").to(ServerReflection).serverReflectionInfo(requests(), call());
      for await (const { validHost } of answers) seen.push(validHost);
      assert.deepEqual(seen, ["enough"]);
      await until(() => returned, "the caller's finally");
    });

    test("asks the handler for no more than its reader has read, and what fits the carrier's windows", async () => {
      let made = 0;
      const large = { frame: { case: "openItems", value: { items: [{ itemId: "x".repeat(1_000_000) }] } } };
      await using mesh = await openTestMesh(carrier, {
        agent: tailWith(async function* () {
          for (;;) {
            made += 1;
            yield large;
          }
        }),
      });
      const leave = new AbortController();
      const reader = mesh
        .links("edge")
        .to(RunTailService)
        .tailRun(RUN, call({ signal: leave.signal }))
        [Symbol.asyncIterator]();
      const { value } = (await reader.next()) as IteratorResult<TailRunResponse>;
      assert.equal(value?.frame.case, "openItems");
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.ok(made <= 25, `${made} messages of 1 MB were made for a reader of one`);
      if (carrier === "memory") assert.equal(made, 1);
      leave.abort();
    });
  });
}
