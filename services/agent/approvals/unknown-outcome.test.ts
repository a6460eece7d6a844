import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { ApprovalDecision, ApprovalKind } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { UnknownPolicy } from "#gen/agentmesh/tool/v1/tool_service_pb.ts";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { says, toolUse } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh, warmUp } from "../testing/agent-mesh.ts";
import { answersIn, approvalsOfRun, decide, inState, startWaiting, storedEvents } from "../testing/approving.ts";
import { assertWellFormed } from "../testing/watching.ts";

describe("a call of which nobody knows whether it took effect", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let boss: Principal;
  before(async () => {
    mesh = await openAgentMesh({ agent: { lease: "20s", heartbeat: "1s" } });
    await warmUp(mesh);
    mesh.neighbours.agent = { ...mesh.neighbours.agent, tools: ["charge"] };
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    boss = principalOf(me.tenantId, ["approvals:read", "approvals:resolve"]);
    mesh.model.reset();
    mesh.model.script({ content: [toolUse("charge", { amount: 5 })] }, says("Over."));
    mesh.neighbours.executed.length = 0;
    mesh.neighbours.tools.set("charge", { risk: 1, onUnknown: UnknownPolicy.ASK });
    mesh.neighbours.toolResult = { unknown: true, isError: true };
  });

  /** The run waits for somebody to say what became of the call. */
  async function asked() {
    const { runId } = await startWaiting(mesh.one, me);
    const [approval] = await approvalsOfRun(mesh.one, boss, runId);
    assert.ok(approval);
    assert.deepEqual(
      [approval.kind, approval.reason, approval.argumentsJson],
      [ApprovalKind.UNKNOWN_OUTCOME, "unknown_outcome", '{"amount":5}'],
    );
    return { runId, approval };
  }

  async function over(runId: string) {
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const events = await storedEvents(mesh, me, runId);
    assertWellFormed(events);
    return answersIn(events);
  }

  test("the model is told, unless the tool wants people to be asked", async () => {
    mesh.neighbours.tools.set("charge", { risk: 1, onUnknown: UnknownPolicy.REPORT });
    mesh.neighbours.executeTool = async () => "not known";
    const { state, runId } = await mesh.one.chat.chat({ message: "go" }, callAs(me));
    assert.equal(state, RunState.COMPLETED);
    assert.deepEqual(await over(runId), [["not known", true]]);
  });

  test("approved, it is made again, under a key of its own: the first one's outcome stays unknown", async () => {
    const { runId, approval } = await asked();
    mesh.neighbours.toolResult = {};
    mesh.neighbours.executeTool = async () => "charged";
    await decide(mesh.one, boss, approval);
    assert.deepEqual(await over(runId), [["charged", false]]);
    const key = `${runId}/${approval.callId}`;
    assert.deepEqual(mesh.neighbours.executed, [key, `${key}/${approval.approvalId}`]);
  });

  test("when that is unknown as well, people are asked again", async () => {
    const { runId, approval } = await asked();
    await decide(mesh.one, boss, approval);
    let second = (await approvalsOfRun(mesh.one, boss, runId))[1];
    while (second === undefined) second = (await approvalsOfRun(mesh.one, boss, runId))[1];
    await decide(mesh.one, boss, second, { decision: ApprovalDecision.DENY, comment: "call the bank" });
    const [[text, isError] = []] = await over(runId);
    assert.match(text ?? "", /not known.*call the bank/);
    assert.equal(isError, true);
    assert.equal(mesh.neighbours.executed.length, 2);
  });

  test("answered, that was its result, and it is not made again", async () => {
    const { runId, approval } = await asked();
    const decision = ApprovalDecision.ANSWER;
    await decide(mesh.one, boss, approval, { decision, answerJson: '"it was charged"' });
    assert.deepEqual(await over(runId), [["it was charged", false]]);
    assert.equal(mesh.neighbours.executed.length, 1);
  });
});
