import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { AwaitedKind } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { ChatEvent } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import type { ClientToolResultSchema } from "#gen/agentmesh/agent/v1/client_tool_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { RiskClass } from "#gen/agentmesh/common/v1/risk_pb.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh, warmUp } from "../testing/agent-mesh.ts";
import {
  answersIn,
  approvalsOfRun,
  decide,
  inState,
  offerRiskyTools,
  storedEvents,
  waiting,
} from "../testing/approving.ts";
import { assertWellFormed } from "../testing/watching.ts";
import { MAX_RESULT_TEXT_BYTES } from "./client-result.ts";

const schema = { type: "object", properties: { q: { type: "string" } }, required: ["q"], additionalProperties: false };
const LOOKUP = {
  name: "lookup",
  description: "Looks something up at the caller's.",
  inputSchemaJson: JSON.stringify(schema),
};

describe("tools that the caller executes", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let boss: Principal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, agent: { lease: "20s", heartbeat: "1s" } });
    await warmUp(mesh);
    offerRiskyTools(mesh);
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    boss = principalOf(me.tenantId, ["approvals:read", "approvals:resolve"]);
    mesh.model.reset();
    mesh.neighbours.executed.length = 0;
    for (const replica of mesh.replicas) replica.wake();
  });
  afterEach(async () => {
    for (const replica of mesh.replicas) replica.wake();
    const { runs } = await mesh.one.runs.listRuns({ state: RunState.RUNNING }, callAs(me));
    for (const { runId } of runs) await inState(mesh.one, me, runId, RunState.COMPLETED);
  });

  const text = (said: string) => [{ part: { case: "text" as const, value: { text: said } } }];
  type Result = MessageInitShape<typeof ClientToolResultSchema>;
  const submit = (runId: string, results: Result[], requestId = "", by = me, replica = mesh.two) =>
    replica.runs.submitToolResults({ runId, results, requestId }, callAs(by));

  async function started(...calls: ReturnType<typeof toolUse>[]) {
    mesh.model.script({ content: calls }, says("Over."));
    const { run } = await mesh.one.runs.startRun({ message: "go", clientTools: [LOOKUP] }, callAs(me));
    const suspended = await waiting(mesh.one, me, run?.runId ?? "");
    return { runId: suspended.runId, awaiting: suspended.awaiting };
  }

  const refusal = async (work: Promise<unknown>) => {
    const error = await rejection(work);
    return [Code[ConnectError.from(error).code], reasonOf(error)];
  };

  test("the model is offered them; Chat answers what is to be executed, and the run goes on with the result", async () => {
    mesh.model.script({ content: [toolUse("lookup", { q: "x" })] }, says("It is y."));
    const answer = await mesh.one.chat.chat({ message: "go", clientTools: [LOOKUP] }, callAs(me));
    assert.equal(answer.state, RunState.SUSPENDED);
    const offered = mesh.model.requests[0]?.body.tools as { name: string; input_schema: object }[];
    assert.deepEqual(offered.find(({ name }) => name === "lookup")?.input_schema, schema);
    const [pending] = answer.pendingToolCalls;
    assert.ok(pending);
    assert.deepEqual([pending.tool, pending.argumentsJson], ["lookup", '{"q":"x"}']);
    assert.deepEqual(answer.pendingApprovals, []);
    const { run, appliedThroughSeq } = await submit(answer.runId, [
      { callId: pending.callId, content: text("y"), structuredJson: '{"y":1}' },
    ]);
    assert.equal(run?.lastSeq, appliedThroughSeq);
    const over = await inState(mesh.one, me, answer.runId, RunState.COMPLETED);
    assert.deepEqual([over.response, over.attempt], ["It is y.", 1]);
    const events = await storedEvents(mesh, me, answer.runId);
    assertWellFormed(events);
    assert.deepEqual(answersIn(events), [["y", false]]);
    const cause = events.flatMap(({ payload }) => (payload.case === "runResumed" ? [payload.value.cause] : []));
    assert.deepEqual(cause, ["tool_results"]);
    assert.deepEqual(mesh.neighbours.executed, [], "the tool service was not asked");
    assert.match(JSON.stringify(mesh.model.requests.at(-1)?.body.messages), /"y"/);
  });

  test("ChatStream says which calls are the caller's", async () => {
    mesh.model.script({ content: [toolUse("look", {}), toolUse("lookup", { q: "x" })] }, says("Over."));
    const events: ChatEvent[] = [];
    const request = { message: "go", clientTools: [LOOKUP] };
    for await (const { event } of mesh.one.chat.chatStream(request, callAs(me))) if (event) events.push(event);
    const calls = events.flatMap(({ payload }) => (payload.case === "toolCall" ? [payload.value.clientExecuted] : []));
    assert.deepEqual(calls, [false, true]);
    const final = events.at(-1)?.payload;
    assert.ok(final?.case === "final");
    assert.deepEqual(
      final.value.pendingToolCalls.map(({ tool }) => tool),
      ["lookup"],
    );
    await mesh.one.runs.cancelRun({ runId: final.value.runId }, callAs(me));
  });

  test("several results come one by one or together, mixed with approvals", async () => {
    const { runId, awaiting } = await started(
      toolUse("lookup", { q: "1" }),
      toolUse("pay", { amount: 1 }),
      toolUse("lookup", { q: "2" }),
    );
    assert.deepEqual(
      awaiting.map(({ tool, kind }) => [tool, kind]),
      [
        ["lookup", AwaitedKind.TOOL_RESULTS],
        ["pay", AwaitedKind.APPROVAL],
        ["lookup", AwaitedKind.TOOL_RESULTS],
      ],
    );
    const [first, , third] = awaiting;
    await submit(runId, [{ callId: third?.callId ?? "", content: text("two") }]);
    const [approval] = await approvalsOfRun(mesh.one, boss, runId);
    assert.ok(approval);
    await decide(mesh.one, boss, approval);
    const left = await waiting(mesh.one, me, runId);
    assert.deepEqual(
      left.awaiting.map(({ callId }) => callId),
      [first?.callId],
    );
    await submit(runId, [{ callId: first?.callId ?? "", content: text("no"), isError: true }]);
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    assert.equal(mesh.neighbours.executed.length, 1);
    const { messages } = await mesh.one.sessions.listMessages({ sessionId: events[0]?.sessionId ?? "" }, callAs(me));
    const results = messages.filter(({ callId }) => callId !== "").map(({ isError }) => isError);
    assert.deepEqual(results, [true, false, false], "in the order of the calls");
  });

  test("a result that was handed in is answered again, another one is refused", async () => {
    const { runId, awaiting } = await started(toolUse("lookup", { q: "1" }), toolUse("lookup", { q: "2" }));
    const [one = "", two = ""] = awaiting.map(({ callId }) => callId);
    const result = { callId: one, content: text("1"), structuredJson: "{}" };
    await submit(runId, [result], "r1");
    const again = await submit(runId, [result], "r1", me, mesh.one);
    assert.equal(again.run?.state, RunState.SUSPENDED);
    assert.equal((await submit(runId, [result])).run?.lastSeq, again.run?.lastSeq, "nothing is appended");
    assert.deepEqual(await refusal(submit(runId, [{ ...result, isError: true }])), [
      "InvalidArgument",
      "FIELD_CONFLICT",
    ]);
    const reused = submit(runId, [{ callId: two, content: text("2") }], "r1");
    assert.deepEqual(await refusal(reused), ["InvalidArgument", "IDEMPOTENCY_KEY_REUSED"]);
    const twice = submit(runId, [
      { callId: two, content: text("2") },
      { callId: two, content: text("3") },
    ]);
    assert.deepEqual(await refusal(twice), ["InvalidArgument", "FIELD_CONFLICT"]);
    await submit(runId, [result, { callId: two, content: text("2") }]);
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    assert.equal((await submit(runId, [result])).run?.state, RunState.COMPLETED, "also when the run is over");
  });

  test("what is not waited for, or too large, is refused; then nothing of it is taken", async () => {
    const { runId, awaiting } = await started(toolUse("look", {}), toolUse("lookup", { q: "1" }));
    const callId = awaiting[0]?.callId ?? "";
    const look = (await storedEvents(mesh, me, runId)).find(({ type }) => type === "tool_call_completed")?.itemId ?? "";
    const good = { callId, content: text("1") };
    const wrong: [Result[], string][] = [
      [[good, { callId: "call_none", content: text("1") }], "no call"],
      [[good, { callId: look, content: text("1") }], "a call of another tool"],
      [[{ callId, content: text("x".repeat(MAX_RESULT_TEXT_BYTES + 1)) }], "text"],
      [[{ callId, content: text("é".repeat(MAX_RESULT_TEXT_BYTES / 2 + 1)) }], "text in bytes"],
      [[{ callId, content: Array.from({ length: 21 }, () => text("x")).flat() }], "parts"],
      [[{ callId, structuredJson: "{" }], "structured result that is no JSON"],
      [[{ callId, structuredJson: JSON.stringify("x".repeat(262_144)) }], "structured result"],
      [Array.from({ length: 65 }, () => good), "results"],
    ];
    for (const [results, what] of wrong) {
      assert.deepEqual(await refusal(submit(runId, results)), ["InvalidArgument", "FIELD_INVALID"], what);
    }
    assert.equal((await submit(runId, [])).run?.state, RunState.SUSPENDED);
    await submit(runId, [{ callId, content: text("x".repeat(MAX_RESULT_TEXT_BYTES)) }]);
    await inState(mesh.one, me, runId, RunState.COMPLETED);
  });

  test("for others there is no such run; a run that was cancelled waits for nothing", async () => {
    const { runId, awaiting } = await started(toolUse("lookup", { q: "1" }));
    const results = [{ callId: awaiting[0]?.callId ?? "", content: text("1") }];
    const scopes = ["runs:write"];
    for (const stranger of [principalOf(newId("ten"), scopes), principalOf(me.tenantId, scopes, { userId: "eve" })]) {
      assert.deepEqual(await refusal(submit(runId, results, "", stranger)), ["NotFound", "RESOURCE_NOT_FOUND"]);
    }
    await mesh.two.runs.cancelRun({ runId }, callAs(me));
    assert.deepEqual(await refusal(submit(runId, results)), ["FailedPrecondition", "RUN_NOT_ACTIVE"]);
    assertWellFormed(await storedEvents(mesh, me, runId));
  });

  test("one that is said to be destructive needs an approval first; its edits are what the caller is given", async () => {
    mesh.model.script({ content: [toolUse("lookup", { q: "x" })] }, says("Over."));
    const clientTools = [{ ...LOOKUP, risk: RiskClass.DESTRUCTIVE }];
    const request = { message: "go", clientTools, requestId: "r" };
    const first = await mesh.one.chat.chat(request, callAs(me));
    assert.deepEqual([first.pendingApprovals.length, first.pendingToolCalls.length], [1, 0]);
    const [approval] = await approvalsOfRun(mesh.one, boss, first.runId);
    assert.ok(approval);
    await decide(mesh.one, boss, approval, { editedArgumentsJson: '{"q":"z"}' });
    let second = await mesh.one.chat.chat(request, callAs(me));
    while (second.state === RunState.RUNNING) second = await mesh.one.chat.chat(request, callAs(me));
    assert.deepEqual([second.pendingApprovals.length, second.pendingToolCalls.length], [0, 1]);
    assert.equal(second.pendingToolCalls[0]?.argumentsJson, '{"q":"z"}');
    await submit(first.runId, [{ callId: second.pendingToolCalls[0]?.callId ?? "", content: text("1") }]);
    await inState(mesh.one, me, first.runId, RunState.COMPLETED);
  });

  test("a result that does not come in time is a failure of the tool", async () => {
    const { runId } = await started(toolUse("lookup", { q: "1" }));
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute("UPDATE agent.client_calls SET expire_time = clock_timestamp() WHERE run_id = $1", [runId]),
    );
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const [[said, isError] = []] = answersIn(await storedEvents(mesh, me, runId));
    assert.match(said ?? "", /in time/);
    assert.equal(isError, true);
  });

  test("whoever takes the run up knows them", async () => {
    const { runId, awaiting } = await started(toolUse("lookup", { q: "1" }));
    mesh.one.kill();
    mesh.model.reset();
    mesh.model.script({ content: [toolUse("lookup", { q: "2" })] }, says("Over."));
    await submit(runId, [{ callId: awaiting[0]?.callId ?? "", content: text("1") }]);
    const again = await waiting(mesh.two, me, runId);
    assert.notEqual(again.awaiting[0]?.callId, awaiting[0]?.callId);
    await submit(runId, [{ callId: again.awaiting[0]?.callId ?? "", content: text("2") }]);
    await inState(mesh.two, me, runId, RunState.COMPLETED);
  });

  test("are refused when one has the name of a tool of the agent, and when there are too many", async () => {
    const start = (clientTools: (typeof LOOKUP)[]) =>
      mesh.one.runs.startRun({ message: "go", clientTools }, callAs(me));
    assert.deepEqual(await refusal(start([{ ...LOOKUP, name: "pay" }])), ["InvalidArgument", "FIELD_INVALID"]);
    const many = Array.from({ length: 33 }, (_, i) => ({ ...LOOKUP, name: `t${i}` }));
    assert.deepEqual(await refusal(start(many)), ["InvalidArgument", "FIELD_INVALID"]);
    assert.deepEqual(await refusal(start([{ ...LOOKUP, inputSchemaJson: "[]" }])), [
      "InvalidArgument",
      "FIELD_INVALID",
    ]);
    const answer = await mesh.one.chat.chat({ message: "hi", clientTools: many.slice(1) }, callAs(me));
    assert.equal(answer.state, RunState.COMPLETED, "32 are not too many");
  });
});
