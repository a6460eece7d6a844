import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { type AgentEvent, AgentEventSchema } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { MessageRole, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { fails, says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { eventsAfter } from "../store/run-store.ts";
import { type AgentMesh, openAgentMesh, type Replica } from "../testing/agent-mesh.ts";
import { assertWellFormed, deltas, read } from "../testing/watching.ts";
import { CALLS_KEPT_MS } from "./retry-run.ts";

describe("RetryRun", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    // One attempt: a run whose owner is lost fails, and is not taken up.
    mesh = await openAgentMesh({ replicas: 2, agent: { max_attempts: "1", lease: "4s", heartbeat: "500ms" } });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.executed.length = 0;
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
    mesh.neighbours.agent = { ...mesh.neighbours.agent, version: 3, maxIterations: 20 };
    mesh.neighbours.toolsDown = false;
    for (const replica of mesh.replicas) replica.wake();
  });

  const get = async (runId: string, by = me) => (await mesh.two.runs.getRun({ runId }, callAs(by))).run;
  const retry = async (runId: string, requestId = "", replica: Replica = mesh.two, by = me) => {
    const { run } = await replica.runs.retryRun({ runId, requestId }, callAs(by));
    assert.ok(run !== undefined);
    return run;
  };
  const ended = async (runId: string) => {
    assert.equal(await read(mesh.two, me, runId).ended, undefined);
    const rows = await mesh.db.tenant(me.tenantId, (tx) => eventsAfter(tx, runId, 0n, 1_000));
    const events = rows.map((bytes) => fromBinary(AgentEventSchema, bytes));
    assertWellFormed(events);
    return events;
  };
  const responseOf = (events: readonly AgentEvent[]) => {
    const end = events.at(-1)?.payload;
    return end?.case === "runCompleted" ? end.value.response : undefined;
  };
  const start = async (message = "go", sessionId = "") => {
    const { run } = await mesh.one.runs.startRun({ message, sessionId }, callAs(me));
    return { runId: run?.runId ?? "", sessionId: run?.sessionId ?? "" };
  };
  const messagesOf = async (sessionId: string) =>
    (await mesh.two.sessions.listMessages({ sessionId, pageSize: 200 }, callAs(me))).messages;
  const lastRequest = () => (mesh.model.requests.at(-1)?.body.messages ?? []) as { role: string; content: unknown }[];

  /** A run that fails for its model when it has used a tool. */
  async function failing(): Promise<{ runId: string; sessionId: string }> {
    mesh.model.script(turnOf({ type: "text", text: "I look." }, toolUse("echo", { a: 1 })), fails(400));
    const started = await start();
    const events = await ended(started.runId);
    assert.equal(events.at(-1)?.type, "run_failed");
    return started;
  }

  test("goes on from the last committed step in a new run, with the plan of the failed one and no new message", async () => {
    const failed = await failing();
    const before = await messagesOf(failed.sessionId);
    mesh.neighbours.agent = { ...mesh.neighbours.agent, version: 4, llmModel: "claude-opus-5-5" };
    mesh.model.script(says("Found it."));
    const run = await retry(failed.runId);
    assert.equal(run.retryOf, failed.runId);
    assert.equal(run.sessionId, failed.sessionId);
    assert.equal(run.agentVersion, 3, "what the agent was when the failed run began");
    const events = await ended(run.runId);
    assert.equal(responseOf(events), "Found it.");
    const [first] = await ended(failed.runId);
    assert.deepEqual(events[0]?.payload, first?.payload, "it answers the same message");
    assert.deepEqual(
      lastRequest().map(({ role }) => role),
      ["user", "assistant", "user"],
      "the question, the call, its result",
    );
    assert.equal(mesh.model.requests.at(-1)?.body.model, "claude-haiku-5-5");
    assert.equal(mesh.neighbours.executed.length, 1);
    const behind = await messagesOf(failed.sessionId);
    assert.deepEqual(behind.slice(0, before.length), before);
    assert.deepEqual(
      behind.slice(before.length).map(({ role }) => role),
      [MessageRole.ASSISTANT],
    );
    assert.equal((await get(failed.runId))?.state, RunState.FAILED, "the failed run stays as it was");
  });

  test("turns with tools count on from the failed run's, also over several retries", async () => {
    mesh.neighbours.agent = { ...mesh.neighbours.agent, maxIterations: 2 };
    const failed = await failing();
    mesh.model.script(turnOf(toolUse("echo", { a: 2 })), fails(400));
    const second = await retry(failed.runId);
    await ended(second.runId);
    mesh.model.script(says("That is all."));
    const third = await retry(second.runId);
    const events = await ended(third.runId);
    const end = events.at(-1)?.payload;
    assert.ok(end?.case === "runCompleted");
    assert.equal(end.value.outcome, 3, "MAX_ITERATIONS: two turns were used up");
    const steps = (of: readonly AgentEvent[]) =>
      of.flatMap(({ payload }) => (payload.case === "stepStarted" ? [payload.value.step] : []));
    assert.deepEqual(steps(events), [5], "steps count on, too: two of the first run, two of the second");
  });

  test("calls that were asked for and perhaps executed go on under their old keys, and are shown", async () => {
    mesh.model.script(turnOf(toolUse("echo", { n: 1 }), toolUse("echo", { n: 2 }), toolUse("echo", { n: 3 })));
    const hanging = Promise.withResolvers<string>();
    mesh.neighbours.executeTool = async ({ argumentsJson }) =>
      argumentsJson.includes("2") && mesh.neighbours.executed.length === 2 ? hanging.promise : argumentsJson;
    const { runId, sessionId } = await start();
    await until(() => mesh.neighbours.executed.length === 2, "the second call");
    mesh.one.kill();
    await ended(runId);
    hanging.resolve("too late");
    mesh.model.script(says("Done."));
    const run = await retry(runId);
    const events = await ended(run.runId);
    assert.equal(responseOf(events), "Done.");
    const [first, second, again, third] = mesh.neighbours.executed;
    assert.equal(again, second, "with its key");
    assert.equal(mesh.neighbours.executed.length, 4);
    for (const key of [first, second, third]) assert.ok(key?.startsWith(`${runId}/`));
    assert.equal(mesh.model.requests.length, 2, "the model was not asked again for its calls");
    assert.equal(events.filter(({ type }) => type === "tool_call_requested").length, 3);
    const roles = (await messagesOf(sessionId)).map(({ role }) => role);
    const { USER, ASSISTANT, TOOL } = MessageRole;
    assert.deepEqual(roles, [USER, ASSISTANT, TOOL, TOOL, TOOL, ASSISTANT]);
  });

  test("also when the retry is lost in the same calls, and when what it needs is away", async () => {
    mesh.model.script(turnOf(toolUse("echo", { n: 1 })));
    mesh.neighbours.executeTool = () => new Promise(() => {});
    const { runId } = await start();
    await until(() => mesh.neighbours.executed.length === 1, "the call");
    mesh.one.kill();
    await ended(runId);
    mesh.neighbours.toolsDown = true;
    const unlucky = await retry(runId);
    assert.equal((await ended(unlucky.runId)).at(-1)?.type, "run_failed");
    mesh.neighbours.toolsDown = false;
    mesh.one.wake();
    await until(() => mesh.one.service.liveRuns.size === 0, "the old owner to notice");
    const lost = await retry(unlucky.runId, "", mesh.one);
    await until(() => mesh.neighbours.executed.length === 2, "the call again");
    mesh.one.kill();
    await ended(lost.runId);
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
    mesh.model.script(turnOf(toolUse("echo", { n: 2 })), says("Done."));
    const last = await retry(lost.runId);
    assert.equal(responseOf(await ended(last.runId)), "Done.");
    const [first, second, third, fourth] = mesh.neighbours.executed;
    assert.deepEqual([second, third], [first, first], "the first run's key, each time");
    assert.ok(first?.startsWith(`${runId}/`));
    assert.ok(fourth?.startsWith(`${last.runId}/`), "a call of its own has a key of its own");
    assert.equal(mesh.neighbours.executed.length, 4);
  });

  test("an answer that was broken off by the run's time is gone on with", async () => {
    await using short = await openAgentMesh({ agent: { run_timeout: "2s", lease: "10s" } });
    short.model.script({ ...says("one two three four five six seven eight".repeat(50)), paceMs: 100 });
    const { run: begun } = await short.one.runs.startRun({ message: "count" }, callAs(me));
    const runId = begun?.runId ?? "";
    const reading = read(short.one, me, runId);
    assert.equal(await reading.ended, undefined);
    assert.ok(deltas(reading).length > 0);
    assert.equal(reading.events.at(-1)?.type, "run_failed");
    short.model.script(says("nine."));
    const { run } = await short.one.runs.retryRun({ runId }, callAs(me));
    const going = read(short.one, me, run?.runId ?? "");
    assert.equal(await going.ended, undefined);
    assert.equal(responseOf(going.events), "nine.");
    const asked = short.model.requests.at(-1)?.body.messages as { role: string }[];
    assert.deepEqual(
      asked.map(({ role }) => role),
      ["user", "assistant", "user"],
      "the model sees its own words, and that it shall go on",
    );
    const { messages } = await short.one.sessions.listMessages({ sessionId: run?.sessionId ?? "" }, callAs(me));
    assert.deepEqual(
      messages.map(({ role }) => role),
      [MessageRole.USER, MessageRole.ASSISTANT, MessageRole.ASSISTANT],
      "nobody sees that it was told so",
    );
  });

  test("is refused for runs that did not fail, are not the newest, are unknown or another's, with facts", async () => {
    const failed = await failing();
    mesh.model.script(says("Yes."));
    const next = await mesh.two.chat.chat({ message: "and?", sessionId: failed.sessionId }, callAs(me));
    const old = await rejection(retry(failed.runId));
    assert.equal(reasonOf(old), "RUN_NOT_RETRYABLE");
    assert.deepEqual(factsOf(old), { state: "FAILED", newer_run_id: next.runId });
    const done = await rejection(retry(next.runId));
    assert.equal(reasonOf(done), "RUN_NOT_RETRYABLE");
    assert.deepEqual(factsOf(done), { state: "COMPLETED" });
    const stranger = principalOf(newId("ten"), TENANT_SCOPES);
    const bound = principalOf(me.tenantId, TENANT_SCOPES, { userId: "somebody" });
    for (const by of [stranger, bound]) {
      assert.equal(reasonOf(await rejection(retry(failed.runId, "", mesh.two, by))), "RESOURCE_NOT_FOUND");
    }
    assert.equal(reasonOf(await rejection(retry(newId("run")))), "RESOURCE_NOT_FOUND");
  });

  test("calls of long ago are not repeated: their tools may have forgotten them", async () => {
    mesh.model.script(turnOf(toolUse("echo", { n: 1 })));
    mesh.neighbours.executeTool = () => new Promise(() => {});
    const { runId } = await start();
    await until(() => mesh.neighbours.executed.length === 1, "the call");
    mesh.one.kill();
    await ended(runId);
    const age = (ms: number) =>
      mesh.db.tenant(me.tenantId, (tx) =>
        tx.execute("UPDATE agent.runs SET end_time = clock_timestamp() - $2 * interval '1 ms' WHERE run_id = $1", [
          runId,
          ms,
        ]),
      );
    await age(CALLS_KEPT_MS + 1);
    const refused = await rejection(retry(runId));
    assert.equal(reasonOf(refused), "RUN_NOT_RETRYABLE");
    assert.deepEqual(factsOf(refused), { state: "FAILED", missing: "call_keys" });
    await age(CALLS_KEPT_MS - 60_000);
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
    mesh.model.script(says("Done."));
    assert.equal(responseOf(await ended((await retry(runId)).runId)), "Done.");
  });

  test("once per key, whatever has become of it; without one a second try finds the session busy", async () => {
    const failed = await failing();
    const requestId = randomUUID();
    mesh.model.script({ ...says("a long answer of many words"), paceMs: 3_000 });
    const [one, two, ...others] = await Promise.all(
      Array.from({ length: 8 }, (_, i) => retry(failed.runId, requestId, mesh.replicas[i % 2])),
    );
    assert.ok(one !== undefined && two !== undefined);
    for (const other of [two, ...others]) assert.equal(other.runId, one.runId);
    const busy = await rejection(retry(failed.runId));
    assert.equal(reasonOf(busy), "SESSION_BUSY");
    assert.deepEqual(factsOf(busy), { run_id: one.runId });
    await mesh.two.runs.cancelRun({ runId: one.runId }, callAs(me));
    assert.equal((await retry(failed.runId, requestId)).state, RunState.CANCELLED, "as it is now");
    const another = await failing();
    assert.equal(reasonOf(await rejection(retry(another.runId, requestId))), "IDEMPOTENCY_KEY_REUSED");
  });

  test("works for whom the failed run worked for; who retried it is in the audit", async () => {
    const failed = await failing();
    const support = principalOf(me.tenantId, ["runs:read", "runs:write"], { subject: "key:support" });
    mesh.model.script(says("Found it."));
    const run = await retry(failed.runId, "", mesh.two, support);
    await ended(run.runId);
    const rows = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query<{ type: string; details: object; who: string }>(
        "SELECT type, details, subject AS who FROM agent.audit WHERE resource = $1 ORDER BY time",
        [run.runId],
      ),
    );
    assert.deepEqual(
      rows.map(({ type }) => type),
      ["run.retried", "run.completed"],
    );
    assert.deepEqual(rows[0]?.details, { retry_of: failed.runId, agent_id: run.agentId });
    assert.notEqual(rows[0]?.who, rows[1]?.who);
    await until(() => mesh.two.service.pool.use.working === 0, "its permit to be given back");
  });
});
