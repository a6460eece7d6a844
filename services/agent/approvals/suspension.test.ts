import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { ApprovalDecision, ApprovalState, AwaitedKind } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import type { ChatEvent } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { runById } from "../store/run-store.ts";
import { type AgentMesh, openAgentMesh, warmUp } from "../testing/agent-mesh.ts";
import {
  answersIn,
  approvalsOfRun,
  decide,
  inState,
  offerRiskyTools,
  startWaiting,
  storedEvents,
} from "../testing/approving.ts";
import { erased } from "../testing/erased.ts";
import { assertWellFormed, durable, read } from "../testing/watching.ts";
import { Approvals } from "./approvals.ts";

describe("a run that waits for people", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let boss: Principal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2, agent: { lease: "20s", heartbeat: "1s", stream_heartbeat: "300ms" } });
    await warmUp(mesh);
    offerRiskyTools(mesh);
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    boss = principalOf(me.tenantId, ["approvals:read", "approvals:resolve"]);
    mesh.model.reset();
    mesh.neighbours.executed.length = 0;
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
    for (const replica of mesh.replicas) replica.wake();
  });

  const typesOf = (events: readonly { type: string }[]) => events.map(({ type }) => type);

  test("uses nothing meanwhile, is watched on, and goes on where it was when it is approved elsewhere", async () => {
    mesh.model.script(
      { content: [toolUse("look", {}), toolUse("pay", { amount: 5 }), toolUse("look", {})] },
      says("Paid."),
    );
    const { run } = await mesh.one.runs.startRun({ message: "pay" }, callAs(me));
    const runId = run?.runId ?? "";
    const readings = mesh.replicas.map((replica) => read(replica, me, runId));
    const suspended = await inState(mesh.one, me, runId, RunState.SUSPENDED);
    await until(() => mesh.one.service.liveRuns.size === 0, "nobody to own it");
    assert.equal(mesh.neighbours.executed.length, 1, "what stands before it has run");
    const [approval] = await approvalsOfRun(mesh.two, boss, runId);
    assert.ok(approval);
    assert.deepEqual(
      suspended.awaiting.map(({ tool, kind, approvalId, callId }) => [tool, kind, approvalId, callId]),
      [["pay", AwaitedKind.APPROVAL, approval.approvalId, approval.callId]],
    );
    assert.deepEqual([approval.argumentsJson, approval.state], ['{"amount":5}', ApprovalState.PENDING]);
    for (const reading of readings) {
      await reading.until(({ frames }) => frames.at(-1)?.case === "heartbeat", "a sign of life while it waits");
    }
    const resolved = await decide(mesh.two, boss, approval);
    assert.equal(resolved.approval?.state, ApprovalState.APPROVED);
    for (const { ended } of readings) assert.equal(await ended, undefined);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    for (const reading of readings) assert.deepEqual(durable(reading.events), events);
    const types = typesOf(events);
    const at = types.indexOf("approval_requested");
    assert.deepEqual(types.slice(at, at + 4), [
      "approval_requested",
      "run_suspended",
      "approval_resolved",
      "run_resumed",
    ]);
    assert.equal(types.at(-1), "run_completed");
    assert.equal(mesh.neighbours.executed.length, 3);
    assert.equal(new Set(mesh.neighbours.executed).size, 3);
    assert.equal(mesh.model.requests.length, 2, "the model was not asked again for its calls");
    const { run: over } = await mesh.one.runs.getRun({ runId }, callAs(me));
    assert.deepEqual([over?.state, over?.attempt, over?.awaiting.length], [RunState.COMPLETED, 1, 0]);
    const cause = events.flatMap(({ payload }) => (payload.case === "runResumed" ? [payload.value.cause] : []));
    assert.deepEqual(cause, ["approval_resolved"]);
  });

  test("waits no longer than its own time limit", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] });
    const { run } = await mesh.one.runs.startRun({ message: "pay", timeLimit: { seconds: 2n } }, callAs(me));
    const { runId = "", sessionId = "" } = run ?? {};
    await inState(mesh.one, me, runId, RunState.SUSPENDED);
    const reading = read(mesh.two, me, runId);
    assert.equal(await reading.ended, undefined);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    const end = events.at(-1)?.payload;
    assert.ok(end?.case === "runFailed");
    assert.match(end.value.error?.message ?? "", /time limit/);
    const [approval] = await approvalsOfRun(mesh.two, boss, runId);
    assert.notEqual(approval?.state, ApprovalState.PENDING);
    mesh.model.script(says("Free."));
    const next = await mesh.one.chat.chat({ message: "and now?", sessionId }, callAs(me));
    assert.equal(next.response, "Free.");
  });

  test("Chat answers that it waits, and for what; a repeated one attaches to what has become of it", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 7 })] }, says("Paid."));
    const request = { message: "pay", requestId: "req-chat" };
    const answer = await mesh.one.chat.chat(request, callAs(me));
    assert.equal(answer.state, RunState.SUSPENDED);
    const [pending] = answer.pendingApprovals;
    assert.ok(pending);
    assert.deepEqual([pending.tool, pending.argumentsJson, pending.reason], ["pay", '{"amount":7}', "risk"]);
    const again = await mesh.two.chat.chat(request, callAs(me));
    assert.deepEqual([again.runId, again.state], [answer.runId, RunState.SUSPENDED]);
    assert.deepEqual(again.pendingApprovals, answer.pendingApprovals);
    await decide(mesh.two, boss, pending);
    await inState(mesh.one, me, answer.runId, RunState.COMPLETED);
    const last = await mesh.one.chat.chat(request, callAs(me));
    assert.deepEqual([last.runId, last.state, last.response], [answer.runId, RunState.COMPLETED, "Paid."]);
  });

  test("ChatStream ends with a final of state SUSPENDED; repeated, it does not end with a wait that is over", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 7 })] }, says("Paid."));
    const streamed = async () => {
      const events: ChatEvent[] = [];
      const request = { message: "pay", requestId: "req-stream" };
      for await (const { event } of mesh.one.chat.chatStream(request, callAs(me))) if (event) events.push(event);
      return events;
    };
    const first = await streamed();
    assert.deepEqual(
      first.map(({ payload }) => payload.case),
      ["toolCall", "approval", "final"],
    );
    const [asked, final] = first.slice(1).map(({ payload }) => payload);
    assert.ok(asked?.case === "approval" && final?.case === "final");
    assert.equal(final.value.state, RunState.SUSPENDED);
    assert.deepEqual(
      final.value.pendingApprovals.map(({ approvalId }) => approvalId),
      [asked.value.approvalId],
    );
    assert.deepEqual(await streamed(), first, "while it waits");
    await decide(mesh.two, boss, asked.value);
    await inState(mesh.one, me, final.value.runId, RunState.COMPLETED);
    const whole = await streamed();
    assert.deepEqual(
      whole.map(({ payload }) => payload.case),
      ["toolCall", "approval", "toolResult", "text", "final"],
    );
  });

  test("asks all questions of a turn together, says again what remains, and goes on with the last", async () => {
    mesh.model.script(
      { content: [toolUse("pay", { amount: 1 }), toolUse("look", {}), toolUse("pay", { amount: 2 })] },
      says("One was paid."),
    );
    const { runId } = await startWaiting(mesh.one, me);
    const [first, second] = await approvalsOfRun(mesh.one, boss, runId);
    assert.ok(first && second);
    const { appliedThroughSeq } = await decide(mesh.one, boss, second, {
      decision: ApprovalDecision.DENY,
      comment: "once is enough",
    });
    const { run } = await mesh.one.runs.getRun({ runId }, callAs(me));
    assert.deepEqual([run?.state, run?.lastSeq], [RunState.SUSPENDED, appliedThroughSeq]);
    assert.deepEqual(
      run?.awaiting.map(({ approvalId }) => approvalId),
      [first.approvalId],
    );
    assert.equal(mesh.neighbours.executed.length, 0, "nothing runs before all is decided");
    await decide(mesh.two, boss, first);
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    assert.equal(typesOf(events).filter((type) => type === "run_suspended").length, 2);
    const answers = answersIn(events);
    assert.deepEqual(
      answers.map(([, isError]) => isError),
      [false, false, true],
    );
    assert.match(answers[2]?.[0] ?? "", /once is enough/);
    assert.equal(mesh.neighbours.executed.length, 2);
  });

  test("is cancelled where nobody owns it: its calls are answered, and the session goes on", async () => {
    mesh.model.script({ content: [toolUse("look", {}), toolUse("pay", { amount: 5 })] }, says("Never mind."));
    const { runId, sessionId } = await startWaiting(mesh.one, me);
    const reading = read(mesh.two, me, runId);
    const [approval] = await approvalsOfRun(mesh.one, boss, runId);
    assert.ok(approval);
    const { run } = await mesh.two.runs.cancelRun({ runId }, callAs(me));
    assert.equal(run?.state, RunState.CANCELLED);
    assert.equal(await reading.ended, undefined, "its watchers see the end");
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    assert.deepEqual(
      answersIn(events).map(([, isError]) => isError),
      [false, true],
    );
    const after = await mesh.one.approvals.getApproval({ approvalId: approval.approvalId }, callAs(boss));
    assert.equal(after.approval?.state, ApprovalState.CANCELLED);
    const next = await mesh.one.chat.chat({ message: "and now?", sessionId }, callAs(me));
    assert.deepEqual([next.state, next.response], [RunState.COMPLETED, "Never mind."]);
    assert.equal(typesOf(await storedEvents(mesh, me, next.runId)).includes("notice"), false, "nothing to repair");
    assert.equal(mesh.neighbours.executed.length, 1);
  });

  test("goes with its session, approvals and all", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] });
    const { runId, sessionId } = await startWaiting(mesh.one, me);
    await mesh.two.sessions.deleteSession({ sessionId }, callAs(me));
    assert.deepEqual(await approvalsOfRun(mesh.one, boss, runId), []);
    await erased(mesh.db, me.tenantId);
    const left = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query("SELECT 1 FROM agent.approvals WHERE tenant_id = agentmesh.current_tenant()"),
    );
    assert.deepEqual(left, []);
  });

  test("an approved call whose process is killed is repeated with its key, and not asked about again", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] }, says("Paid."));
    const { runId } = await startWaiting(mesh.one, me);
    const [approval] = await approvalsOfRun(mesh.one, boss, runId);
    assert.ok(approval);
    const hanging = Promise.withResolvers<string>();
    mesh.neighbours.executeTool = () => hanging.promise;
    await decide(mesh.one, boss, approval);
    await until(() => mesh.neighbours.executed.length === 1, "the call");
    const row = await mesh.db.tenant(me.tenantId, (tx) => runById(tx, runId));
    const [owner, other] = row?.owner === mesh.one.instanceId ? [mesh.one, mesh.two] : [mesh.two, mesh.one];
    owner.kill();
    mesh.neighbours.executeTool = async () => "paid";
    // Its lease ends.
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute("UPDATE agent.runs SET lease_expires = clock_timestamp() WHERE run_id = $1", [runId]),
    );
    const over = await inState(other, me, runId, RunState.COMPLETED);
    hanging.resolve("too late");
    assert.equal(over.attempt, 2, "that is another attempt");
    const [first, second, ...more] = mesh.neighbours.executed;
    assert.deepEqual([first, more], [second, []]);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    assert.equal(typesOf(events).filter((type) => type === "approval_requested").length, 1);
  });

  test("survives kill -9 of everybody: between wait and decision, and between decision and take-up", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] }, says("Paid."));
    const { runId } = await startWaiting(mesh.one, me);
    const [approval] = await approvalsOfRun(mesh.two, boss, runId);
    assert.ok(approval);
    for (const replica of mesh.replicas) replica.kill();
    // Somebody who decides, and dies before it can tell anybody.
    const dying = new Approvals({ database: mesh.db, onAdvanced: () => {} });
    const { approvalId, argumentsSha256 } = approval;
    const given = { editedArgumentsJson: "", answerJson: "", comment: "", requestId: "" };
    const call = { principal: boss, signal: new AbortController().signal, requestId: "", ip: "", userAgent: "" };
    await dying.resolve(call, { approvalId, argumentsSha256, decision: ApprovalDecision.APPROVE, ...given });
    const between = await mesh.db.tenant(me.tenantId, (tx) => runById(tx, runId));
    assert.deepEqual([between?.state, between?.owner, between?.attempt], [RunState.RUNNING, "", 1]);
    mesh.two.wake();
    const over = await inState(mesh.two, me, runId, RunState.COMPLETED);
    assert.deepEqual([over.response, over.attempt], ["Paid.", 1]);
    assert.equal(mesh.neighbours.executed.length, 1, "once");
    assertWellFormed(await storedEvents(mesh, me, runId));
  });
});
