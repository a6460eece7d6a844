import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { ledgerOf } from "../store/ledger-store.ts";
import { eventsAfter, runById } from "../store/run-store.ts";
import { type AgentMesh, openAgentMesh, warmUp } from "../testing/agent-mesh.ts";
import { assertWellFormed, deltas, durable, read } from "../testing/watching.ts";

describe("a run whose owner is lost", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, agent: { max_attempts: "3" } });
    await warmUp(mesh);
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.executed.length = 0;
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
    for (const replica of mesh.replicas) replica.wake();
  });

  async function start(message = "go"): Promise<{ runId: string; sessionId: string }> {
    const { run } = await mesh.one.runs.startRun({ message }, callAs(me));
    return { runId: run?.runId ?? "", sessionId: run?.sessionId ?? "" };
  }

  const stored = async (runId: string): Promise<AgentEvent[]> => {
    const rows = await mesh.db.tenant(me.tenantId, (tx) => eventsAfter(tx, runId, 0n, 1_000));
    return rows.map((bytes) => fromBinary(AgentEventSchema, bytes));
  };
  const typesOf = (events: readonly AgentEvent[]) => events.map(({ type }) => type);
  const requestTexts = () => mesh.model.requests.map(({ body }) => JSON.stringify(body.messages));

  test("in the middle of an answer: the broken step is void, another asks again, and nothing of before is repeated", async () => {
    mesh.model.script(
      { content: [{ type: "text", text: "I look." }, toolUse("echo", { a: 1 })] },
      { ...says("one two three four five six seven eight nine ten".repeat(20)), paceMs: 30 },
      says("And that was it."),
    );
    const { runId, sessionId } = await start();
    const reading = read(mesh.two, me, runId);
    await until(() => mesh.model.requests.length === 2, "the second turn");
    await reading.until(() => deltas(reading).length > 5, "its text");
    mesh.one.kill();
    assert.equal(await reading.ended, undefined);
    const events = await stored(runId);
    assertWellFormed(events);
    assert.deepEqual(durable(reading.events), events, "who watched by the other replica missed nothing");
    const end = events.at(-1)?.payload;
    assert.ok(end?.case === "runCompleted");
    assert.equal(end.value.response, "And that was it.");
    const resumed = events.findIndex(({ type }) => type === "run_resumed");
    assert.deepEqual(typesOf(events).slice(resumed - 1, resumed + 1), ["item_discarded", "run_resumed"]);
    assert.deepEqual(mesh.neighbours.executed.length, 1, "the tool had answered");
    assert.equal(requestTexts()[1], requestTexts()[2], "the same question was asked again");
    const { run } = await mesh.two.runs.getRun({ runId }, callAs(me));
    assert.deepEqual([run?.state, run?.attempt], [RunState.COMPLETED, 2]);
    mesh.one.wake();
    await until(() => mesh.one.service.liveRuns.size === 0, "the old owner to notice");
    assert.deepEqual(await stored(runId), events, "the old owner can write nothing");
    mesh.model.script(says("Yes."));
    const next = await mesh.two.chat.chat({ message: "still there?", sessionId }, callAs(me));
    assert.equal(next.state, RunState.COMPLETED);
  });

  test("while tools run: those that answered are not called again, the others are, with the same key", async () => {
    mesh.model.script(
      { content: [toolUse("echo", { n: 1 }), toolUse("echo", { n: 2 }), toolUse("echo", { n: 3 })] },
      says("Done."),
    );
    const hanging = Promise.withResolvers<string>();
    mesh.neighbours.executeTool = async ({ argumentsJson }) =>
      argumentsJson.includes("2") && mesh.neighbours.executed.length === 2 ? hanging.promise : argumentsJson;
    const { runId } = await start();
    await until(() => mesh.neighbours.executed.length === 2, "the second call");
    mesh.one.kill();
    const reading = read(mesh.two, me, runId);
    assert.equal(await reading.ended, undefined);
    hanging.resolve("too late");
    const events = await stored(runId);
    assertWellFormed(events);
    assert.equal(events.at(-1)?.type, "run_completed");
    const [first, second, again, third] = mesh.neighbours.executed;
    assert.equal(second, again, "repeated with its key");
    assert.equal(new Set([first, second, third]).size, 3);
    assert.equal(mesh.neighbours.executed.length, 4);
    const answered = events.flatMap(({ payload }) =>
      payload.case === "toolCallCompleted" ? payload.value.content.map(({ part }) => part.value) : [],
    );
    assert.deepEqual(
      answered.map((value) => (value as { text: string }).text),
      ['{"n":1}', '{"n":2}', '{"n":3}'],
    );
    assert.equal(mesh.model.requests.length, 2, "the model was not asked again for its calls");
    assert.equal(typesOf(events).includes("item_discarded"), false, "nothing that was shown is void");
  });

  test("its usage is what every attempt was billed", async () => {
    mesh.model.script(
      {
        ...says("one two three four five six seven eight"),
        paceMs: 40,
        usage: { input_tokens: 11, output_tokens: 100 },
      },
      { ...says("Done."), usage: { input_tokens: 11, output_tokens: 5 } },
    );
    const { runId } = await start();
    const reading = read(mesh.one, me, runId);
    await reading.until(() => deltas(reading).length > 2, "text");
    mesh.one.kill();
    const there = read(mesh.two, me, runId);
    assert.equal(await there.ended, undefined);
    const end = there.events.at(-1)?.payload;
    assert.ok(end?.case === "runCompleted");
    const booked = await mesh.db.tenant(me.tenantId, (tx) => ledgerOf(tx, runId));
    const sum = booked.reduce((all, entry) => all + entry.inputTokens + entry.outputTokens, 0n);
    assert.equal(
      end.value.usage?.totalTokens,
      sum + booked.reduce((all, e) => all + e.cacheReadTokens + e.cacheWriteTokens, 0n),
    );
    assert.ok(sum > 0n);
  });

  test("that loses its owners again and again fails as RUN_POISONED, and its session is free", async () => {
    const { runId, sessionId } = await start("[[slow 20]] [[deltas 2000]] tell me a story");
    // Every owner is lost before it comes to anything.
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute(
        "UPDATE agent.runs SET attempt = 3, owner = 'ins_gone', epoch = 9, lease_expires = clock_timestamp() WHERE run_id = $1",
        [runId],
      ),
    );
    const reading = read(mesh.two, me, runId);
    await reading.ended;
    const end = (await stored(runId)).at(-1);
    assert.equal(end?.type, "run_failed");
    assert.match(
      JSON.stringify(end?.payload.value, (_, value) => (typeof value === "bigint" ? String(value) : value)),
      /taken up again/,
    );
    const run = await mesh.db.tenant(me.tenantId, (tx) => runById(tx, runId));
    assert.equal(run?.state, RunState.FAILED);
    mesh.model.script(says("Yes."));
    assert.equal((await mesh.two.chat.chat({ message: "and now?", sessionId }, callAs(me))).state, RunState.COMPLETED);
  });

  test("that is cancelled meanwhile is cancelled by whoever goes on with it", async () => {
    const { runId } = await start("[[slow 20]] [[deltas 2000]] tell me a story");
    const reading = read(mesh.two, me, runId);
    await reading.until(() => deltas(reading).length > 3, "text");
    mesh.one.kill();
    const { run } = await mesh.two.runs.cancelRun({ runId }, callAs(me));
    assert.equal(run?.state, RunState.CANCELLED);
    assertWellFormed(await stored(runId));
  });
});
