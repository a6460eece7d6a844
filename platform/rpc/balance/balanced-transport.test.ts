import assert from "node:assert/strict";
import { after, before, describe, mock, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, type ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { RunTailService } from "#gen/agentmesh/agent/v1/run_tail_service_pb.ts";
import { ResolutionService } from "#gen/agentmesh/config/v1/resolution_service_pb.ts";
import { type Call, onward } from "../call.ts";
import { AppError, factsOf, reasonOf } from "../errors.ts";
import type { Links } from "../links.ts";
import { rejection, testCall, until } from "../test-mesh.contract.ts";
import { openTestReplicas } from "./test-replicas.contract.ts";

const call = (more: Partial<Call> = {}) => testCall(["agents:run", "runs:read", "runs:write"], more);
const read = (links: Links, more: Partial<Call> = {}) =>
  links.to(ResolutionService).resolveAgent({}, onward(call(more)));
const write = (links: Links, more: Partial<Call> = {}) =>
  links.to(RunTailService).cancelOwnedRun({ runId: "run_1" }, onward(call(more)));
const watch = (links: Links, more: Partial<Call> = {}) =>
  links
    .to(RunService)
    .streamRunEvents({ runId: "run_1" }, onward(call(more)))
    [Symbol.asyncIterator]();

/** Answers everything at once. */
const answering = (router: ConnectRouter) => {
  router.service(ResolutionService, { resolveAgent: () => ({}) });
  router.service(RunTailService, { cancelOwnedRun: () => ({}) });
};

/** Makes `count` calls, `width` at a time; answers the failures. */
async function many(count: number, width: number, one: () => Promise<unknown>): Promise<unknown[]> {
  const failures: unknown[] = [];
  let begun = 0;
  const worker = async () => {
    while (begun < count) {
      begun += 1;
      await one().catch((error) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  return failures;
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, one) => total + one, 0);
const neverOpens = { minCalls: 1_000_000 };

describe("calls to a module with several replicas", () => {
  before(() => void mock.method(console, "error", () => {}));
  after(() => mock.restoreAll());

  test("reach all of them", async () => {
    await using mesh = await openTestReplicas(3, answering);
    assert.deepEqual(await many(300, 10, () => read(mesh.links)), []);
    const begun = mesh.begun();
    assert.equal(sum(begun), 300);
    for (const calls of begun) assert.ok(calls >= 30, String(begun));
  });

  test("go where fewer are in flight: streams count until they end", async () => {
    const held: number[] = [0, 0];
    await using mesh = await openTestReplicas(2, (router, index) => {
      router.service(RunService, {
        async *streamRunEvents(_, context) {
          held[index] = (held[index] ?? 0) + 1;
          yield {};
          await sleep(60_000, undefined, { signal: context.signal });
        },
      });
    });
    const leave = new AbortController();
    const streams = [];
    for (let index = 0; index < 20; index++) {
      const stream = watch(mesh.links, { signal: leave.signal });
      await stream.next();
      streams.push(stream);
    }
    assert.equal(sum(held), 20);
    for (const count of held) assert.ok(count >= 5, String(held));
    leave.abort();
    await Promise.all(streams.map((stream) => rejection(stream.next())));
  });

  test("do not fail when a replica is killed, if they only read; and it is used again when it is back", async () => {
    await using mesh = await openTestReplicas(3, answering, { ejection: { baseMs: 100, maxMs: 200 } });
    let killed: Promise<void> | undefined;
    let made = 0;
    const failures = await many(600, 8, async () => {
      made += 1;
      if (made === 200) killed = mesh.kill(1);
      await read(mesh.links);
    });
    await killed;
    assert.deepEqual(failures, []);
    const [, before = 0] = mesh.begun();
    await mesh.revive(1);
    await sleep(300);
    assert.deepEqual(await many(200, 8, () => read(mesh.links)), []);
    assert.ok((mesh.begun()[1] ?? 0) > before + 10, String(mesh.begun()));
  });

  test("that write are made elsewhere when they were never sent", async () => {
    await using mesh = await openTestReplicas(2, answering);
    await mesh.kill(0);
    assert.deepEqual(await many(50, 1, () => write(mesh.links)), []);
    assert.deepEqual(mesh.begun(), [0, 50]);
  });

  test("that write are not repeated after they were sent", async () => {
    const reached = [0, 0];
    await using mesh = await openTestReplicas(2, (router, index) => {
      router.service(RunTailService, {
        async cancelOwnedRun(_, context) {
          reached[index] = (reached[index] ?? 0) + 1;
          await sleep(60_000, undefined, { signal: context.signal });
          return {};
        },
      });
    });
    const failed = rejection(write(mesh.links));
    await until(() => sum(reached) === 1, "the write");
    const at = reached.indexOf(1);
    await mesh.kill(at);
    assert.equal(reasonOf(await failed), "DEPENDENCY_DOWN");
    assert.equal(sum(reached), 1);
  });

  test("that stream are repeated before their first message, and not after it", async () => {
    const reached = [0, 0];
    let first = true;
    await using mesh = await openTestReplicas(2, (router, index) => {
      router.service(RunService, {
        async *streamRunEvents(_, context) {
          reached[index] = (reached[index] ?? 0) + 1;
          if (first) {
            first = false;
            throw new AppError({ code: Code.Unavailable, reason: "STREAM_DRAINING", message: "Elsewhere." });
          }
          yield {};
          await sleep(60_000, undefined, { signal: context.signal });
        },
      });
    });
    const stream = watch(mesh.links);
    assert.equal((await stream.next()).done, false);
    assert.deepEqual(reached, [1, 1]);
    const failed = rejection(stream.next());
    await Promise.all([mesh.kill(0), mesh.kill(1)]);
    assert.equal(reasonOf(await failed), "DEPENDENCY_DOWN");
    assert.deepEqual(reached, [1, 1]);
  });

  test("cost a callee that is all out at most the budget more", async () => {
    const budget = { ratio: 0.2, burst: 5 };
    await using mesh = await openTestReplicas(
      3,
      (router) =>
        router.service(ResolutionService, {
          resolveAgent() {
            throw new AppError({ code: Code.Unavailable, reason: "STREAM_DRAINING", message: "Elsewhere." });
          },
        }),
      { budget, breaker: neverOpens },
    );
    const failures = await many(200, 4, () => read(mesh.links));
    assert.equal(failures.length, 200);
    const made = sum(mesh.begun());
    assert.ok(made <= 200 * (1 + budget.ratio) + budget.burst, String(made));
    assert.ok(made > 200, "nothing was retried");
  });

  test("are not repeated for an answer about something behind the callee", async () => {
    await using mesh = await openTestReplicas(3, (router) =>
      router.service(ResolutionService, {
        resolveAgent() {
          throw new AppError({ code: Code.Unavailable, reason: "DEPENDENCY_DOWN", message: "The database." });
        },
      }),
    );
    assert.equal((await many(40, 4, () => read(mesh.links))).length, 40);
    assert.equal(sum(mesh.begun()), 40);
  });

  test("keep their deadline over all attempts, and end when the caller leaves", async () => {
    await using mesh = await openTestReplicas(3, (router) =>
      router.service(ResolutionService, {
        async resolveAgent(_, context) {
          await sleep(60_000, undefined, { signal: context.signal });
          return {};
        },
      }),
    );
    const late = await rejection(read(mesh.links, { deadline: Date.now() + 150 }));
    assert.equal((late as ConnectError).code, Code.DeadlineExceeded);
    const leave = new AbortController();
    const left = rejection(read(mesh.links, { signal: leave.signal }));
    await until(() => sum(mesh.begun()) === 2, "the call");
    leave.abort();
    assert.equal(((await left) as ConnectError).code, Code.Canceled);
    assert.equal(sum(mesh.begun()), 2, "neither is repeated");
  });

  test("by an address of one replica go there alone", async () => {
    await using mesh = await openTestReplicas(2, answering);
    const [first = ""] = mesh.addresses;
    const at = () => mesh.links.at(RunTailService, first).cancelOwnedRun({ runId: "run_1" }, onward(call()));
    assert.deepEqual(await many(20, 2, at), []);
    assert.deepEqual(mesh.begun(), [20, 0]);
    await mesh.kill(0);
    assert.equal(reasonOf(await rejection(at())), "DEPENDENCY_DOWN");
    assert.deepEqual(mesh.begun(), [20, 0]);
  });

  test("reach every address that DNS has for a name, and follow it", async () => {
    let ips = ["127.0.0.1", "::1"];
    await using mesh = await openTestReplicas(
      1,
      (router) =>
        router.service(ResolutionService, {
          resolveAgent: () => ({}),
        }),
      { resolve: async () => ips, refreshMs: 20 },
      ([address = ""]) => address.replace("127.0.0.1", "replicas.invalid"),
    );
    // Nothing listens at ::1: its calls are made at the other address.
    assert.deepEqual(await many(30, 3, () => read(mesh.links)), []);
    assert.equal(sum(mesh.begun()), 30);
    ips = ["127.0.0.1", "127.0.0.2"];
    await sleep(30);
    await read(mesh.links);
    await sleep(30);
    assert.deepEqual(await many(30, 3, () => read(mesh.links)), []);
  });
});

describe("the breaker of a module", () => {
  test("opens in an outage, refuses at once with the time to wait, and closes when the module is back", async () => {
    await using mesh = await openTestReplicas(2, answering, {
      breaker: { minCalls: 10, openMs: 300, maxOpenMs: 300 },
      ejection: { baseMs: 50, maxMs: 50 },
    });
    await Promise.all([mesh.kill(0), mesh.kill(1)]);
    await many(10, 1, () => read(mesh.links));
    const error = await rejection(read(mesh.links));
    assert.deepEqual([reasonOf(error), factsOf(error)], ["DEPENDENCY_DOWN", { dependency: "callee" }]);
    assert.ok(error instanceof AppError);
    assert.match(String(error.cause), /breaker/);
    assert.ok((error.retryAfterMs ?? 0) > 0 && (error.retryAfterMs ?? 0) <= 360, String(error.retryAfterMs));
    await Promise.all([mesh.revive(0), mesh.revive(1)]);
    await sleep(400);
    for (let probe = 0; probe < 20; probe++) await read(mesh.links);
    assert.equal(sum(mesh.begun()), 20);
  });

  test("does not count what the callee answers, callers that leave, or deadlines of callers in a hurry", async () => {
    let answer: "error" | "wait" | "ok" = "error";
    await using mesh = await openTestReplicas(
      2,
      (router) =>
        router.service(ResolutionService, {
          async resolveAgent(_, context) {
            if (answer === "error") throw new AppError({ code: Code.Internal, reason: "INTERNAL", message: "x" });
            if (answer === "wait") await sleep(60_000, undefined, { signal: context.signal });
            return {};
          },
        }),
      { breaker: { minCalls: 5, failureShare: 0.1 } },
    );
    assert.equal((await many(20, 2, () => read(mesh.links))).length, 20);
    answer = "wait";
    await many(20, 10, () => read(mesh.links, { deadline: Date.now() + 30 }));
    await many(20, 10, () => read(mesh.links, { signal: AbortSignal.timeout(20) }));
    answer = "ok";
    assert.deepEqual(await many(20, 2, () => read(mesh.links)), []);
  });

  test("counts deadlines of patient callers while the callee answers nobody", async () => {
    await using mesh = await openTestReplicas(
      2,
      (router) =>
        router.service(ResolutionService, {
          async resolveAgent(_, context) {
            await sleep(60_000, undefined, { signal: context.signal }).catch(() => {});
            await sleep(500);
            return {};
          },
        }),
      { breaker: { minCalls: 10 } },
    );
    const hung = await many(10, 10, () => read(mesh.links, { deadline: Date.now() + 1_200 }));
    assert.deepEqual(new Set(hung.map((error) => (error as ConnectError).code)), new Set([Code.DeadlineExceeded]));
    assert.match(String(((await rejection(read(mesh.links))) as AppError).cause), /breaker/);
  });
});
