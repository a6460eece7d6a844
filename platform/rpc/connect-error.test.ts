import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { ToolExecutionService } from "#gen/agentmesh/tool/v1/tool_execution_service_pb.ts";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.ts";
import { callOf, onward } from "./call.ts";
import { toConnectError } from "./connect-error.ts";
import { AppError, dependencyDown, etagMismatch, factsOf, invalidFields, notFound, raise, reasonOf } from "./errors.ts";
import { ERROR_DOMAIN, reasons } from "./reasons.ts";
import { CARRIERS, openTestMesh, rejection, testCall } from "./test-mesh.contract.ts";

const everything = new AppError({
  code: Code.ResourceExhausted,
  reason: "RATE_LIMITED",
  message: "Too many — «slow» down.",
  facts: { limit: "10", window: "1m" },
  violations: [{ field: "names[3]", description: "is one too many" }],
  retryAfterMs: 1234,
  cause: new Error("redis at 10.0.0.7 said no"),
});

function detailsOf(error: ConnectError) {
  return {
    info: error.findDetails(ErrorInfoSchema).map(({ reason, domain, metadata }) => ({ reason, domain, metadata })),
    fields: error
      .findDetails(BadRequestSchema)
      .flatMap(({ fieldViolations }) => fieldViolations.map(({ field, description }) => ({ field, description }))),
    retry: error.findDetails(RetryInfoSchema).map(({ retryDelay }) => ({ ...retryDelay })),
    request: error.findDetails(RequestInfoSchema).map(({ requestId }) => requestId),
  };
}

function connectError(error: unknown): ConnectError {
  assert.ok(error instanceof ConnectError, String(error));
  return error;
}

describe("toConnectError", () => {
  test("an AppError keeps code, message, reason, facts, violations and retry delay", () => {
    const error = toConnectError(everything, "req_1");
    assert.equal(error.code, Code.ResourceExhausted);
    assert.equal(error.rawMessage, "Too many — «slow» down.");
    const { info, fields, retry, request } = detailsOf(error);
    assert.deepEqual(info, [{ reason: "RATE_LIMITED", domain: ERROR_DOMAIN, metadata: { limit: "10", window: "1m" } }]);
    assert.deepEqual(fields, [{ field: "names[3]", description: "is one too many" }]);
    assert.deepEqual(
      retry.map(({ seconds, nanos }) => [seconds, nanos]),
      [[1n, 234_000_000]],
    );
    assert.deepEqual(request, ["req_1"]);
    assert.equal(error.cause, everything);
  });

  test("an unknown failure tells nothing but the request id", () => {
    for (const thrown of [
      new Error("password=hunter2 at /srv/app/db.ts"),
      new TypeError("x is undefined"),
      "a string",
      undefined,
      { toString: () => "hunter2" },
      new ConnectError("hunter2", Code.Internal),
      new ConnectError("hunter2", Code.Unknown),
      new ConnectError("hunter2", Code.NotFound),
      new ConnectError("hunter2", Code.Unauthenticated),
    ]) {
      const error = toConnectError(thrown, "req_7");
      assert.equal(error.code, Code.Internal);
      assert.equal(error.rawMessage, "Internal error. Quote request id req_7 when you report it.");
      const { info, fields, retry } = detailsOf(error);
      assert.deepEqual([info, fields, retry], [[{ reason: "INTERNAL", domain: ERROR_DOMAIN, metadata: {} }], [], []]);
      assert.equal(error.cause, thrown);
      assert.equal([...error.metadata].length, 0);
    }
  });

  test("an abort is CANCELLED, a timeout DEADLINE_EXCEEDED, also when they wrap the call's own deadline", async () => {
    const abort = AbortSignal.abort().reason as unknown;
    const timeout = await rejection(
      new Promise((_, reject) => {
        const signal = AbortSignal.timeout(1);
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
    );
    const deadline = new ConnectError("the operation timed out", Code.DeadlineExceeded);
    const wrapped = Object.assign(new Error("The operation was aborted"), { name: "AbortError", cause: deadline });
    const cases: [unknown, Code, string][] = [
      [abort, Code.Canceled, "CLIENT_CANCELLED"],
      [new ConnectError("gone", Code.Canceled), Code.Canceled, "CLIENT_CANCELLED"],
      [timeout, Code.DeadlineExceeded, "DEADLINE"],
      [deadline, Code.DeadlineExceeded, "DEADLINE"],
      [wrapped, Code.DeadlineExceeded, "DEADLINE"],
    ];
    for (const [thrown, code, reason] of cases) {
      const error = toConnectError(thrown, "req_1");
      assert.equal(Code[error.code], Code[code]);
      assert.equal(reasonOf(error), reason);
    }
  });

  test("a client that goes away in the middle of its own stream has cancelled, and is no fault of ours", () => {
    const cut = Object.assign(new Error("Premature close"), { code: "ERR_STREAM_PREMATURE_CLOSE" });
    assert.equal(toConnectError(cut, "req_1").code, Code.Canceled);
    assert.equal(reasonOf(toConnectError(cut, "req_1")), "CLIENT_CANCELLED");
  });

  test("an abort whose reason is one of our errors is that error", () => {
    const draining = new AppError({ code: Code.Unavailable, reason: "STREAM_DRAINING", message: "Reconnect." });
    const wrapped = Object.assign(new Error("aborted"), { name: "AbortError", cause: draining });
    assert.equal(reasonOf(toConnectError(wrapped, "req_1")), "STREAM_DRAINING");
    assert.equal(toConnectError(wrapped, "req_1").code, Code.Unavailable);
  });

  test("errors of the RPC library get the reason of their code", () => {
    const cases: [Code, string][] = [
      [Code.InvalidArgument, "BODY_MALFORMED"],
      [Code.ResourceExhausted, "PAYLOAD_TOO_LARGE"],
      [Code.Unimplemented, "FEATURE_DISABLED"],
      [Code.Unavailable, "DEPENDENCY_DOWN"],
    ];
    for (const [code, reason] of cases) {
      const error = toConnectError(new ConnectError("from the library", code), "req_1");
      assert.equal(error.code, code);
      assert.equal(reasonOf(error), reason);
      assert.deepEqual(detailsOf(error).request, ["req_1"]);
    }
    const down = toConnectError(new ConnectError("connect ECONNREFUSED 10.0.0.7:80", Code.Unavailable), "req_1");
    assert.doesNotMatch(down.message, /10\.0\.0\.7/);
    assert.equal(detailsOf(down).retry[0]?.seconds, 1n);
  });

  test("the helpers make the errors of the contract, with reasons that it lists", () => {
    const made: [AppError, Code, string][] = [
      [notFound("api_key"), Code.NotFound, "RESOURCE_NOT_FOUND"],
      [invalidFields({ field: "a.b", description: "is too long" }), Code.InvalidArgument, "FIELD_INVALID"],
      [etagMismatch(), Code.Aborted, "ETAG_MISMATCH"],
      [dependencyDown("postgres"), Code.Unavailable, "DEPENDENCY_DOWN"],
    ];
    for (const [error, code, reason] of made) {
      assert.equal(error.code, code);
      assert.equal(reasonOf(error), reason);
      assert.ok((reasons as readonly string[]).includes(reason));
    }
    assert.equal(notFound("api_key").message, "No such api key.");
    assert.deepEqual(factsOf(notFound("api_key")), { resource_type: "api_key" });
    assert.equal(invalidFields({ field: "a.b", description: "is too long" }).message, "a.b: is too long");
    assert.throws(() => raise(notFound("run")), AppError);
    assert.equal(reasonOf(new Error("x")), undefined);
    assert.deepEqual(factsOf(new Error("x")), {});
  });
});

for (const carrier of CARRIERS) {
  describe(`errors over the ${carrier} carrier`, () => {
    const open = (fail: () => unknown) =>
      openTestMesh(carrier, {
        tool: {
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
        },
        config: {
          services: [ResolutionService],
          routes: (router) => router.service(ResolutionService, { resolveAgent: () => raise(fail() as Error) }),
        },
      });

    test("an error of the second service reaches the caller of the first unchanged, unary and streamed", async () => {
      await using mesh = await open(() => everything);
      const call = testCall(["agents:run"]);
      const direct = connectError(
        await rejection(mesh.links("edge").to(ResolutionService).resolveAgent({}, onward(call))),
      );
      const unary = connectError(
        await rejection(mesh.links("edge").to(ToolExecutionService).describeTools({}, onward(call))),
      );
      const stream = mesh.links("edge").to(ToolExecutionService).executeTool({ tool: "x", callId: "c" }, onward(call));
      const streamed = connectError(await rejection(stream[Symbol.asyncIterator]().next()));
      for (const error of [unary, streamed]) {
        assert.equal(error.code, direct.code);
        assert.equal(error.rawMessage, everything.message);
        assert.deepEqual(detailsOf(error), detailsOf(direct));
        assert.deepEqual(detailsOf(error).request, [call.requestId]);
        assert.equal(error.details.length, 4);
      }
      assert.deepEqual(factsOf(unary), everything.facts);
    });

    test("an internal failure of the second service shows neither its text nor its stack", async () => {
      await using mesh = await open(() => new Error("password=hunter2 at /srv/app/db.ts"));
      const call = testCall(["agents:run"]);
      const error = connectError(
        await rejection(mesh.links("edge").to(ToolExecutionService).describeTools({}, onward(call))),
      );
      assert.equal(error.code, Code.Internal);
      assert.equal(reasonOf(error), "INTERNAL");
      assert.match(error.rawMessage, new RegExp(call.requestId));
      const shown = JSON.stringify([
        error.message,
        [...error.metadata],
        error.details.map(String),
        detailsOf(error).info,
      ]);
      assert.doesNotMatch(shown, /hunter2|db\.ts/);
      const ends = mesh.calls.ended.map(({ method, code, reason }) => [method, code, reason]);
      assert.deepEqual(ends, [
        ["ResolveAgent", "internal", "INTERNAL"],
        ["DescribeTools", "internal", "INTERNAL"],
      ]);
      assert.match(String(mesh.calls.ended[0]?.error), /hunter2/, "the log gets the cause");
    });
  });
}
