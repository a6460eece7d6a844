import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { NatsBus } from "#platform/bus/nats-bus.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { skipWithout } from "#platform/testing/missing-server.ts";
import { says } from "#platform/testing/model-server/turn.ts";
import { natsUrlVariable, type PrivateNats, privateNats } from "#platform/testing/private-nats.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { SEQ_BLOCK } from "../store/run-store.ts";
import { type AgentMesh, openAgentMesh, type Replica } from "../testing/agent-mesh.ts";
import { driveRun } from "../testing/driven-run.ts";
import {
  assertChain,
  assertDeltasFit,
  assertRising,
  deltas,
  durable,
  openItems,
  type Reading,
  read,
} from "../testing/watching.ts";

/** A message that is answered for longer than any test waits. */
const LONG = "[[slow 20]] [[deltas 2000]] tell me a story";
const skip = skipWithoutPostgres() || skipWithout("nats-server", natsUrlVariable);

describe("two replicas of the agent service", { skip }, () => {
  let nats: PrivateNats;
  let mesh: AgentMesh;
  let me: Principal;
  const open = (agent: Record<string, unknown> = {}) =>
    openAgentMesh({
      replicas: 2,
      agent,
      bus: () => new NatsBus({ ...nats, log: createLog({ level: "silent", service: "bus" }) }),
    });
  before(async () => {
    nats = await privateNats();
    mesh = await open();
  });
  after(async () => {
    await mesh[Symbol.asyncDispose]();
    await nats[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
  });

  async function start(message: string, replica: Replica = mesh.one): Promise<{ runId: string; sessionId: string }> {
    const { run } = await replica.runs.startRun({ message }, callAs(me));
    return { runId: run?.runId ?? "", sessionId: run?.sessionId ?? "" };
  }

  const streaming = (reading: Reading) => reading.until(() => deltas(reading).length >= 5, "deltas");
  const cancel = (runId: string, replica: Replica) => replica.runs.cancelRun({ runId }, callAs(me));

  test("watch each other's runs: deltas too, through one tail however many watch", async () => {
    const run = await driveRun(mesh, mesh.one, me);
    const { runId, log } = run;
    const itemId = "msg_a";
    const say = (offset: number, text: string) =>
      log.transient({ itemId, payload: { case: "textDelta", value: { offset: BigInt(offset), text } } });
    const tailed = mesh.one.tailed();
    const readings = Array.from({ length: 8 }, () => read(mesh.two, me, runId));
    const caughtUp = (reading: Reading) =>
      reading.until(({ frames }) => frames.some((frame) => frame.case === "caughtUp"), "the live part");
    await Promise.all(readings.map(caughtUp));
    log.append({ body: { payload: { case: "stepStarted", value: { step: 1 } } } });
    for (let i = 0; i < 20; i++) say(i, "x");
    await Promise.all(readings.map((reading) => reading.until(() => deltas(reading).length === 20, "deltas")));
    assert.equal(mesh.two.service.remoteTails.size, 1);
    assert.equal(log.feed.subscribers, 1);
    const late = read(mesh.two, me, runId);
    await caughtUp(late);
    for (let i = 20; i < 40; i++) say(i, "x");
    const parts = [{ part: { case: "text" as const, value: { text: "x".repeat(40) } } }];
    log.append({ body: { itemId, payload: { case: "messageCompleted", value: { parts } } } });
    await run.end();
    assert.deepEqual(await Promise.all([...readings, late].map(({ ended }) => ended)), Array(9).fill(undefined));
    for (const { events, frames } of [...readings, late]) {
      assert.equal(events.at(-1)?.type, "run_cancelled");
      assertRising(events);
      assertChain(events);
      assert.equal(assertDeltasFit(frames), 0);
      assert.deepEqual(durable(events), durable(late.events));
    }
    assert.equal(openItems(late)[0]?.items.length, 1);
    await mesh.settled();
    assert.equal(mesh.one.tailed(), tailed + 1, "there was one tail");
  });

  test("let go of the tail when the last reader leaves, and of nothing before", async () => {
    const { runId } = await start(LONG);
    const [first, second] = [read(mesh.two, me, runId), read(mesh.two, me, runId)];
    await Promise.all([streaming(first), streaming(second)]);
    first.leave();
    await first.ended;
    const seen = deltas(second).length;
    await second.until(() => deltas(second).length > seen + 3, "the other one to go on");
    second.leave();
    await second.ended;
    await mesh.settled();
    const again = read(mesh.two, me, runId);
    await streaming(again);
    await cancel(runId, mesh.one);
    await again.ended;
    assert.equal(assertDeltasFit(again.frames), 0);
    await mesh.settled();
  });

  test("cancel each other's runs, and answer when the end is written", async () => {
    const { runId, sessionId } = await start(LONG);
    const watching = read(mesh.two, me, runId);
    await streaming(watching);
    const answers = await Promise.all([cancel(runId, mesh.two), cancel(runId, mesh.one), cancel(runId, mesh.two)]);
    assert.deepEqual(
      answers.map(({ run }) => run?.state),
      [RunState.CANCELLED, RunState.CANCELLED, RunState.CANCELLED],
    );
    await watching.ended;
    assert.equal(watching.events.at(-1)?.type, "run_cancelled");
    assert.equal(watching.events.at(-1)?.seq, answers[0]?.appliedThroughSeq);
    const { run } = await cancel(runId, mesh.two);
    assert.equal(run?.state, RunState.CANCELLED, "once more changes nothing");
    await until(() => mesh.model.requests.at(-1)?.abandoned === true, "the model's stream to be broken off");
    mesh.model.script(says("Fine."));
    const next = await mesh.two.chat.chat({ message: "and now?", sessionId }, callAs(me));
    assert.equal(next.state, RunState.COMPLETED);
  });

  test("let nobody of another tenant have the tail of a run, nor cancel it", async () => {
    const { runId } = await start(LONG);
    const other = principalOf(newId("ten"), TENANT_SCOPES);
    const missing = await refusal(mesh.one.tail.cancelOwnedRun({ runId: newId("run") }, callAs(other)));
    assert.deepEqual(await refusal(mesh.one.tail.cancelOwnedRun({ runId }, callAs(other))), missing);
    const tail = (async () => {
      for await (const _ of mesh.one.tail.tailRun({ runId }, callAs(other)));
    })();
    assert.deepEqual(await refusal(tail), missing);
    await cancel(runId, mesh.one);
  });

  test("a replica that drains keeps those who watch its own runs, sends the others on, and begins nothing new", async () => {
    await using own = await open();
    const { runId } = await start("[[slow 20]] [[deltas 80]] tell me", own.one);
    const mine = read(own.one, me, runId);
    const others = await start(LONG, own.two);
    const elsewhere = read(own.one, me, others.runId);
    await Promise.all([streaming(mine), streaming(elsewhere)]);
    const drained = own.one.service.drain?.(AbortSignal.timeout(20_000));
    assert.equal(reasonOf(await elsewhere.ended), "STREAM_DRAINING");
    const refused = await refusal(own.one.runs.startRun({ message: "more" }, callAs(me)));
    assert.equal(refused.reason, "STREAM_DRAINING");
    assert.equal(await mine.ended, undefined);
    assert.equal(mine.events.at(-1)?.type, "run_completed");
    await drained;
    await cancel(others.runId, own.two);
  });

  test("a replica that stops where runs are not taken up cancels what is left of its own, and those who watch are told", async () => {
    await using own = await open({ max_attempts: "1" });
    const { runId } = await start(LONG, own.one);
    const [here, there] = [read(own.one, me, runId), read(own.two, me, runId)];
    await Promise.all([streaming(here), streaming(there)]);
    await own.one.service.drain?.(AbortSignal.abort());
    await own.one.service.stop?.();
    for (const reading of [here, there]) {
      assert.equal(await reading.ended, undefined);
      const end = reading.events.at(-1)?.payload;
      assert.ok(end?.case === "runCancelled");
      assert.equal(end.value.cause, "shutdown");
    }
  });

  describe("when the owner of a run is killed", () => {
    let broken: AgentMesh;
    before(async () => {
      // A run of these is not taken up: they are about the end that another one writes.
      broken = await open({ max_attempts: "1" });
    });
    after(() => broken[Symbol.asyncDispose]());

    test("the other one ends the run as OWNER_LOST, its readers see it whole, and the old owner can write nothing", async () => {
      const { runId, sessionId } = await start(LONG, broken.one);
      const here = read(broken.one, me, runId);
      const there = read(broken.two, me, runId);
      await Promise.all([streaming(here), streaming(there)]);
      broken.one.kill();
      const asked = broken.two.runs.cancelRun({ runId }, callAs(me));
      assert.equal(await there.ended, undefined);
      const end = there.events.at(-1)?.payload;
      assert.ok(end?.case === "runFailed");
      const info = end.value.error?.details.map((detail) => anyUnpack(detail, ErrorInfoSchema))[0];
      assert.equal(info?.reason, "OWNER_LOST");
      assert.ok((there.events.at(-1)?.seq ?? 0n) > SEQ_BLOCK, "numbered above all that was ever shown");
      assert.equal(there.events.at(-2)?.type, "item_discarded", "the open step is void");
      assertRising(there.events);
      assertChain(there.events);
      const { run } = await asked;
      assert.equal(run?.state, RunState.FAILED, "a cancel waits for the end, whoever writes it");

      // A reader whose last event was a preview of the dead owner is served.
      const last = here.events.at(-1)?.seq ?? 0n;
      const resumed = read(broken.two, me, runId, { afterSeq: last });
      assert.equal(await resumed.ended, undefined);
      assert.deepEqual([...durable(here.events), ...durable(resumed.events)], durable(there.events));
      assertRising([...here.events, ...resumed.events]);

      broken.one.wake();
      await until(() => broken.one.service.liveRuns.size === 0, "the old owner to notice");
      const { events } = await broken.two.runs.listRunEvents({ runId, pageSize: 200 }, callAs(me));
      assert.deepEqual(events, durable(there.events), "nothing was added");
      broken.model.script(says("Yes."));
      const next = await broken.two.chat.chat({ message: "still there?", sessionId }, callAs(me));
      assert.equal(next.state, RunState.COMPLETED);
      await broken.settled();
    });

    test("and only stands still, its readers elsewhere do not wait for its connections to break", async () => {
      const { runId } = await start(LONG, broken.one);
      const there = read(broken.two, me, runId);
      await streaming(there);
      const frozenAt = performance.now();
      broken.one.freeze();
      assert.equal(await there.ended, undefined);
      assert.ok(performance.now() - frozenAt < 20_000, "before HTTP/2 would have found out");
      assert.equal(there.events.at(-1)?.type, "run_failed");
      assertChain(there.events);
      // The tail of a frozen owner is not asked for again and again.
      assert.equal(broken.two.service.remoteTails.size, 0);
      const late = read(broken.two, me, runId);
      assert.equal(await late.ended, undefined);
      assert.deepEqual(late.events, durable(there.events));
      broken.one.wake();
      await until(() => broken.one.service.liveRuns.size === 0, "the old owner to notice");
      await broken.settled();
    });

    test("while it is frozen a new reader gets what is stored, and goes on with the end", async () => {
      const { runId } = await start(LONG, broken.one);
      await streaming(read(broken.one, me, runId));
      broken.one.freeze();
      const late = read(broken.two, me, runId);
      assert.equal(await late.ended, undefined);
      assert.equal(late.events[0]?.type, "run_started");
      assert.equal(late.events.at(-1)?.type, "run_failed");
      assertChain(late.events);
      broken.one.wake();
      await broken.settled();
    });
  });
});
