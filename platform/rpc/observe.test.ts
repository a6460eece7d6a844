import assert from "node:assert/strict";
import { after, before, describe, mock, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { callOf, onward } from "./call.ts";
import { consume } from "./consume.ts";
import { notFound } from "./errors.ts";
import { codeName } from "./observe.ts";
import { CARRIERS, openTestMesh, rejection, testCall, until } from "./test-mesh.contract.ts";

/** Large enough to fill the windows between the processes soon. */
const LARGE = { frame: { case: "event" as const, value: { itemId: "x".repeat(10_000) } } };

interface Handler {
  /** What the handler has done, in order. */
  steps: string[];
  tail(request: unknown, context: HandlerContext): AsyncIterable<object>;
}

/** Yields until it is told to stop, and says when its `finally` ran. */
function endless({ pauseMs = 0 } = {}): Handler {
  const steps: string[] = [];
  return {
    steps,
    async *tail(_, context) {
      try {
        for (let n = 1; ; n++) {
          if (pauseMs > 0) await sleep(pauseMs, undefined, { signal: context.signal });
          steps.push(`frame ${n}`);
          yield LARGE;
        }
      } finally {
        steps.push("finally");
      }
    },
  };
}

/** Sends one frame and then waits for its signal, as a stream does that has nothing to say. */
function quiet(): Handler {
  const steps: string[] = [];
  return {
    steps,
    async *tail(_, context) {
      try {
        yield {};
        await sleep(60_000, undefined, { signal: context.signal });
      } finally {
        steps.push("finally");
      }
    },
  };
}

const openTail = (carrier: (typeof CARRIERS)[number], handler: Handler) =>
  openTestMesh(carrier, {
    agent: {
      services: [RunTailService],
      routes: (router) => router.service(RunTailService, { tailRun: handler.tail }),
    },
  });

for (const carrier of CARRIERS) {
  describe(`streams over the ${carrier} carrier`, () => {
    // Connect's adapter writes to the console when a caller leaves in the middle of a write.
    before(() => void mock.method(console, "error", () => {}));
    after(() => mock.restoreAll());
    const call = (signal = new AbortController().signal) => onward(testCall(["agents:run"], { signal }));
    const request = { runId: "run_1" };

    for (const [name, make] of [
      ["that always has something to say", () => endless()],
      ["that says something now and then", () => endless({ pauseMs: 5 })],
      ["that is waiting", () => quiet()],
    ] as const) {
      test(`a stream ${name} runs its finally when the client aborts, and ends once`, async () => {
        const handler = make();
        await using mesh = await openTail(carrier, handler);
        const leave = new AbortController();
        const stream = mesh.links("edge").to(RunTailService).tailRun(request, call(leave.signal));
        const reader = stream[Symbol.asyncIterator]();
        assert.equal((await reader.next()).done, false);
        leave.abort();
        await until(() => handler.steps.includes("finally"), "finally");
        const { code, reason } = await mesh.calls.endOf("TailRun");
        assert.deepEqual([code, reason], ["canceled", "CLIENT_CANCELLED"]);
        await sleep(20);
        assert.equal(mesh.calls.ended.length, 1);
        const after = handler.steps.length;
        await sleep(20);
        assert.equal(handler.steps.length, after, "nothing is made for nobody");
      });

      test(`a stream ${name} runs its finally when the reader breaks out of consume()`, async () => {
        const handler = make();
        await using mesh = await openTail(carrier, handler);
        const client = mesh.links("edge").to(RunTailService);
        let frames = 0;
        const principal = testCall(["agents:run"]);
        for await (const _ of consume((signal) => client.tailRun(request, onward({ ...principal, signal })))) {
          frames += 1;
          break;
        }
        assert.equal(frames, 1);
        await until(() => handler.steps.includes("finally"), "finally");
        assert.equal((await mesh.calls.endOf("TailRun")).code, "canceled");
      });
    }

    test("a slow reader does not let a fast stream run ahead without bound", async () => {
      const handler = endless();
      await using mesh = await openTail(carrier, handler);
      const leave = new AbortController();
      const reader = mesh.links("edge").to(RunTailService).tailRun(request, call(leave.signal))[Symbol.asyncIterator]();
      await reader.next();
      let before = -1;
      await until(() => {
        const still = handler.steps.length === before;
        before = handler.steps.length;
        return still;
      }, "the stream to pause");
      leave.abort();
      await until(() => handler.steps.includes("finally"), "finally");
    });

    test("a stream that ends by itself ends once, with ok", async () => {
      const handler: Handler = {
        steps: [],
        async *tail() {
          yield {};
          yield {};
        },
      };
      await using mesh = await openTail(carrier, handler);
      let frames = 0;
      for await (const _ of mesh.links("edge").to(RunTailService).tailRun(request, call())) frames += 1;
      assert.equal(frames, 2);
      const end = await mesh.calls.endOf("TailRun");
      assert.deepEqual([end.code, end.reason, end.error], ["ok", undefined, undefined]);
      assert.ok(end.durationMs > 0);
    });

    test("a stream that fails in the middle delivers what it had and ends once with its error", async () => {
      const failure = notFound("run");
      const handler: Handler = {
        steps: [],
        async *tail() {
          yield {};
          throw failure;
        },
      };
      await using mesh = await openTail(carrier, handler);
      const reader = mesh.links("edge").to(RunTailService).tailRun(request, call())[Symbol.asyncIterator]();
      assert.equal((await reader.next()).done, false);
      const error = await rejection(reader.next());
      assert.ok(error instanceof ConnectError && error.code === Code.NotFound);
      const end = await mesh.calls.endOf("TailRun");
      assert.deepEqual([end.code, end.reason, end.error], ["not_found", "RESOURCE_NOT_FOUND", failure]);
    });

    test("a stream whose finally throws still ends once", async () => {
      const handler: Handler = {
        steps: [],
        async *tail() {
          try {
            for (;;) yield LARGE;
          } finally {
            handler.steps.push("finally");
            // biome-ignore lint/correctness/noUnsafeFinally: the fault under test
            throw new Error("in finally");
          }
        },
      };
      await using mesh = await openTail(carrier, handler);
      const leave = new AbortController();
      const reader = mesh.links("edge").to(RunTailService).tailRun(request, call(leave.signal))[Symbol.asyncIterator]();
      await reader.next();
      leave.abort();
      await mesh.calls.endOf("TailRun");
      await sleep(20);
      assert.equal(mesh.calls.ended.length, 1);
      assert.deepEqual(handler.steps, ["finally"]);
    });

    test("an abort reaches a stream behind a second hop, and both calls end once", async () => {
      const handler = quiet();
      const middle: string[] = [];
      await using mesh = await openTestMesh(carrier, {
        agent: {
          services: [RunTailService],
          routes: (router, links) =>
            router.service(RunTailService, {
              async *tailRun({ runId }, context) {
                const serving = callOf(context);
                if (runId === "run_far") {
                  yield* handler.tail(undefined, context);
                  return;
                }
                try {
                  const far = links.to(RunTailService);
                  yield* consume(
                    (signal) => far.tailRun({ runId: "run_far" }, onward({ ...serving, signal })),
                    serving.signal,
                  );
                } finally {
                  middle.push("finally");
                }
              },
            }),
        },
      });
      const leave = new AbortController();
      const reader = mesh.links("edge").to(RunTailService).tailRun(request, call(leave.signal))[Symbol.asyncIterator]();
      assert.equal((await reader.next()).done, false);
      leave.abort();
      await until(() => handler.steps.includes("finally") && middle.includes("finally"), "both finally blocks");
      await until(() => mesh.calls.ended.length === 2, "both ends");
      await sleep(20);
      assert.deepEqual(
        mesh.calls.ended.map(({ code }) => code),
        ["canceled", "canceled"],
      );
    });
  });
}

describe("consume", () => {
  test("passes the parent's abort on, and aborts after the last message", async () => {
    const seen: AbortSignal[] = [];
    async function* source(signal: AbortSignal) {
      seen.push(signal);
      yield 1;
      yield 2;
    }
    const parent = new AbortController();
    assert.deepEqual(await Array.fromAsync(consume(source, parent.signal)), [1, 2]);
    assert.equal(seen[0]?.aborted, true);
    const reader = consume(source, parent.signal);
    await reader.next();
    assert.equal(seen[1]?.aborted, false);
    parent.abort(new Error("gone"));
    assert.equal(seen[1]?.reason.message, "gone");
    await reader.return();
  });
});

describe("codeName", () => {
  test("spells codes as the Connect protocol does", () => {
    assert.deepEqual([Code.NotFound, Code.Canceled, Code.DeadlineExceeded].map(codeName), [
      "not_found",
      "canceled",
      "deadline_exceeded",
    ]);
  });
});
