import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import { OnBusy } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh, warmUp } from "../testing/agent-mesh.ts";
import { approvalsOfRun, decide, inState, offerRiskyTools, startWaiting, storedEvents } from "../testing/approving.ts";
import { erased } from "../testing/erased.ts";
import { notices, payloads, sent } from "../testing/play-run.ts";
import { assertWellFormed } from "../testing/watching.ts";

describe("what comes to a run that waits for people", { skip: skipWithoutPostgres() }, () => {
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
  });

  /** A run that waits for leave to pay, and its approval. */
  async function asking() {
    const { runId, sessionId } = await startWaiting(mesh.one, me, { message: "pay" });
    const [approval] = await approvalsOfRun(mesh.one, boss, runId);
    assert.ok(approval);
    return { runId, sessionId, approval };
  }
  /** A message that is sent to the run itself, and one that joins it by way of its session; their ids. */
  async function tellTwice(runId: string, sessionId: string): Promise<string[]> {
    const direct = await mesh.two.runs.sendRunInput({ runId, message: "only five" }, callAs(me));
    const joining = { message: "and hurry", sessionId, onBusy: OnBusy.STEER };
    const joined = await mesh.one.runs.startRun(joining, callAs(me));
    assert.deepEqual([joined.run?.runId, joined.run?.state], [runId, RunState.SUSPENDED]);
    return [direct.messageId, joined.inputMessageId];
  }
  const texts = async (sessionId: string) => {
    const { messages } = await mesh.two.sessions.listMessages({ sessionId, pageSize: 200 }, callAs(me));
    return messages.flatMap(({ messageId, parts }) =>
      parts.flatMap(({ part }) => (part.case === "text" ? [[messageId, part.value.text] as const] : [])),
    );
  };
  const pending = () => mesh.db.tenant(me.tenantId, (tx) => tx.query("SELECT run_id FROM agent.run_inputs"));

  test("a turn that interrupts cancels it: its call is never made, its question is closed, and the turn begins", async () => {
    for (const replica of mesh.replicas) {
      mesh.model.reset();
      mesh.model.script({ content: [toolUse("pay", { amount: 5 })] }, says("I have not."));
      const { runId, sessionId, approval } = await asking();
      const answer = await replica.chat.chat({ message: "don't", sessionId, onBusy: OnBusy.INTERRUPT }, callAs(me));
      assert.deepEqual([answer.state, answer.response], [RunState.COMPLETED, "I have not."]);
      assert.notEqual(answer.runId, runId);
      const events = await storedEvents(mesh, me, runId);
      assertWellFormed(events);
      assert.equal(payloads(events, "runCancelled")[0]?.cause, "interrupted");
      const { approval: closed } = await mesh.one.approvals.getApproval(
        { approvalId: approval.approvalId },
        callAs(boss),
      );
      assert.equal(closed?.state, ApprovalState.CANCELLED);
      assert.deepEqual(notices(await storedEvents(mesh, me, answer.runId)), [], "nothing to repair");
      assert.equal((await mesh.one.sessions.getSession({ sessionId }, callAs(me))).session?.activeRunId, "");
    }
    assert.equal(mesh.neighbours.executed.length, 0);
  });

  test("a message waits with it, and is before the model when it goes on, behind the result", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] }, says("Five it is."));
    const { runId, sessionId, approval } = await asking();
    const ids = await tellTwice(runId, sessionId);
    const { run } = await mesh.one.runs.getRun({ runId }, callAs(me));
    assert.equal(run?.state, RunState.SUSPENDED, "a message is no decision");
    assert.deepEqual([mesh.model.requests.length, mesh.neighbours.executed.length], [1, 0]);
    assert.equal((await pending()).length, 2);
    await decide(mesh.two, boss, approval);
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    assert.deepEqual(
      payloads(events, "inputAccepted").map(({ messageId }) => messageId),
      ids,
    );
    assert.equal(mesh.neighbours.executed.length, 1);
    assert.match(sent(mesh.model.requests[1]).join("\n"), /"amount":5.*only five.*and hurry/s);
    assert.deepEqual(
      (await texts(sessionId)).filter(([id]) => ids.includes(id)),
      [
        [ids[0], "only five"],
        [ids[1], "and hurry"],
      ],
    );
    assert.deepEqual(await pending(), []);
  });

  test("is cancelled instead: the messages are in the session, in their order, and the next turn sees them", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] }, says("As you said."));
    const { runId, sessionId } = await asking();
    const ids = await tellTwice(runId, sessionId);
    const { run } = await mesh.two.runs.cancelRun({ runId }, callAs(me));
    assert.equal(run?.state, RunState.CANCELLED);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    assert.deepEqual(
      payloads(events, "inputAccepted").map(({ messageId }) => messageId),
      ids,
    );
    assert.deepEqual((await texts(sessionId)).slice(-2), [
      [ids[0], "only five"],
      [ids[1], "and hurry"],
    ]);
    assert.deepEqual(await pending(), []);
    await mesh.one.chat.chat({ message: "well?", sessionId }, callAs(me));
    assert.match(sent(mesh.model.requests[1]).join("\n"), /only five.*and hurry.*well\?/s);
    assert.equal(mesh.neighbours.executed.length, 0);
  });

  test("deletion of its session ends it: nothing of it can be decided or told any more, and what waited is erased", async () => {
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] });
    const { runId, sessionId, approval } = await asking();
    await tellTwice(runId, sessionId);
    await mesh.two.sessions.deleteSession({ sessionId }, callAs(me));
    for (const ask of [
      () => decide(mesh.one, boss, approval),
      () => mesh.one.runs.sendRunInput({ runId, message: "more" }, callAs(me)),
      () => mesh.one.runs.getRun({ runId }, callAs(me)),
      () => mesh.one.chat.chat({ message: "x", sessionId, onBusy: OnBusy.INTERRUPT }, callAs(me)),
    ]) {
      assert.equal(reasonOf(await rejection(ask())), "RESOURCE_NOT_FOUND");
    }
    await erased(mesh.db, me.tenantId);
    for (const table of ["runs", "run_inputs", "approvals", "step_drafts", "messages"]) {
      const rows = await mesh.db.tenant(me.tenantId, (tx) => tx.query(`SELECT FROM agent.${table}`));
      assert.equal(rows.length, 0, table);
    }
    assert.deepEqual([mesh.model.requests.length, mesh.neighbours.executed.length], [1, 0]);
  });
});
