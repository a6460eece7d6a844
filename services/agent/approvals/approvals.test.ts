import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Approval, ApprovalDecision, ApprovalState } from "#gen/agentmesh/agent/v1/approval_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { ApprovalThreshold } from "#gen/agentmesh/config/v1/approval_policy_pb.ts";
import { ApprovalPendingSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
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
  startWaiting,
  storedEvents,
} from "../testing/approving.ts";

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

describe("an approval", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  let boss: Principal;
  /** Arguments of each call that was executed. */
  const executed: string[] = [];
  before(async () => {
    mesh = await openAgentMesh({ agent: { lease: "20s", heartbeat: "1s" } });
    await warmUp(mesh);
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    boss = principalOf(me.tenantId, ["approvals:read", "approvals:resolve"]);
    mesh.model.reset();
    mesh.neighbours.agent = { llmModel: "claude-haiku-5-5", maxTokens: 1000, version: 3 };
    offerRiskyTools(mesh);
    executed.length = 0;
    mesh.neighbours.executeTool = async ({ argumentsJson }) => {
      executed.push(argumentsJson);
      return "paid";
    };
  });

  // A run that goes on must not take the next test's answers.
  afterEach(async () => {
    const { runs } = await mesh.one.runs.listRuns({ state: RunState.RUNNING }, callAs(me));
    for (const { runId } of runs) await inState(mesh.one, me, runId, RunState.COMPLETED);
  });

  /** A run that waits for leave to pay 5, and the approval as its approver reads it. */
  async function asked(request: { endUserId?: string; sessionId?: string } = {}, by = me, reader = boss) {
    mesh.model.reset();
    mesh.model.script({ content: [toolUse("pay", { amount: 5 })] }, says("Over."));
    const { runId } = await startWaiting(mesh.one, by, request);
    const [approval] = await approvalsOfRun(mesh.one, reader, runId);
    assert.ok(approval);
    return { runId, approval };
  }

  const refusal = async (work: Promise<unknown>) => {
    const error = await rejection(work);
    return [Code[ConnectError.from(error).code], reasonOf(error)];
  };

  const auditOf = (approval: Approval) =>
    mesh.db.tenant(me.tenantId, (tx) =>
      tx.query<{ type: string; subject: string }>(
        "SELECT type, subject FROM agent.audit WHERE resource = $1 ORDER BY id",
        [approval.approvalId],
      ),
    );

  test("says exactly what will run; approved, that is what runs, once", async () => {
    const { runId, approval } = await asked({ endUserId: "ada" });
    const { $typeName: _, createTime, expireTime, argumentsSchemaJson, ...rest } = approval;
    const callId = rest.callId;
    assert.deepEqual(rest, {
      approvalId: approval.approvalId,
      runId,
      sessionId: approval.sessionId,
      agentId: "agt_default",
      endUserId: "ada",
      callId,
      tool: "pay",
      kind: 1,
      argumentsJson: '{"amount":5}',
      argumentsSha256: sha256('{"amount":5}'),
      risk: 3,
      reason: "risk",
      allowedDecisions: [1, 2, 3],
      requiresOtherPrincipal: false,
      state: ApprovalState.PENDING,
      resolvedBy: "",
      comment: "",
      editedArgumentsJson: "",
      approvedArgumentsSha256: "",
      answerJson: "",
    });
    assert.equal(JSON.parse(argumentsSchemaJson).properties.amount.minimum, 1);
    assert.ok(Math.abs(Number(expireTime?.seconds) - Number(createTime?.seconds) - 24 * 3600) <= 5);
    const { approval: resolved } = await decide(mesh.one, boss, approval, { comment: "fine" });
    assert.deepEqual(
      [resolved?.state, resolved?.resolvedBy, resolved?.comment, resolved?.approvedArgumentsSha256],
      [ApprovalState.APPROVED, boss.subject, "fine", approval.argumentsSha256],
    );
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    assert.deepEqual(executed, ['{"amount":5}']);
    assert.deepEqual(await auditOf(approval), [
      { type: "approval.requested", subject: me.subject },
      { type: "approval.resolved", subject: boss.subject },
    ]);
  });

  test("tells the bus that somebody is waited for", async () => {
    const { runId, approval } = await asked({ endUserId: "ada" });
    const [row] = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query<{ subject: string; payload: Uint8Array }>(
        "SELECT subject, payload FROM agent.outbox WHERE tenant_id = agentmesh.current_tenant()",
      ),
    );
    assert.equal(row?.subject, `agentmesh.approval.v1.${me.tenantId}.requested`);
    const told = fromBinary(ApprovalPendingSchema, row.payload);
    assert.deepEqual(
      [told.approvalId, told.runId, told.endUserId, told.tool, told.risk],
      [approval.approvalId, runId, "ada", "pay", 3],
    );
  });

  test("denied: the call is not made, the model is told why, and the run goes on", async () => {
    const { runId, approval } = await asked();
    await decide(mesh.one, boss, approval, { decision: ApprovalDecision.DENY, comment: "too much" });
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const [[text, isError] = []] = answersIn(await storedEvents(mesh, me, runId));
    assert.match(text ?? "", /"pay" was not made.*too much/);
    assert.deepEqual([isError, executed], [true, []]);
    assert.match(JSON.stringify(mesh.model.requests.at(-1)?.body.messages), /too much/);
  });

  test("answered: the model is given the answer in place of the tool's", async () => {
    const { runId, approval } = await asked();
    await decide(mesh.one, boss, approval, { decision: ApprovalDecision.ANSWER, answerJson: '{"receipt":"R-7"}' });
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const events = await storedEvents(mesh, me, runId);
    assert.deepEqual(answersIn(events), [['{"receipt":"R-7"}', false]]);
    const completed = events.find(({ payload }) => payload.case === "toolCallCompleted")?.payload;
    assert.ok(completed?.case === "toolCallCompleted");
    assert.equal(completed.value.structuredJson, '{"receipt":"R-7"}');
    assert.deepEqual(executed, []);
  });

  test("edited arguments replace the others as a whole, are checked again, and are what is recorded and run", async () => {
    const { runId, approval } = await asked();
    const edit = (editedArgumentsJson: string, decision: ApprovalDecision = ApprovalDecision.APPROVE) =>
      decide(mesh.one, boss, approval, { editedArgumentsJson, decision });
    for (const wrong of ['{"amount":0}', '{"amount":"5"}', "{}", '{"amount":1,"to":"me"}', "[]", "{", '"5"']) {
      assert.deepEqual(await refusal(edit(wrong)), ["InvalidArgument", "SCHEMA_VIOLATION"], wrong);
    }
    assert.deepEqual(await refusal(edit('{"amount":1}', ApprovalDecision.DENY)), ["InvalidArgument", "FIELD_INVALID"]);
    const { approval: resolved } = await edit('{"amount":3}');
    assert.deepEqual(
      [resolved?.argumentsJson, resolved?.editedArgumentsJson, resolved?.approvedArgumentsSha256],
      ['{"amount":5}', '{"amount":3}', sha256('{"amount":3}')],
    );
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    assert.deepEqual(executed, ['{"amount":3}']);
    const events = await storedEvents(mesh, me, runId);
    const event = events.find(({ payload }) => payload.case === "approvalResolved")?.payload;
    assert.ok(event?.case === "approvalResolved");
    assert.deepEqual(
      [event.value.editedArgumentsJson, event.value.approvedArgumentsSha256],
      ['{"amount":3}', sha256('{"amount":3}')],
    );
    assert.match(answersIn(events)[0]?.[0] ?? "", /paid\n.*"amount":3/, "the model learns what was done");
  });

  test("nobody decides about what he has not seen, or in a way that makes no sense", async () => {
    const { approval } = await asked();
    const { APPROVE, ANSWER, DENY } = ApprovalDecision;
    const wrong: [Parameters<typeof decide>[3], string][] = [
      [{ argumentsSha256: sha256('{"amount":6}') }, "other arguments"],
      [{ argumentsSha256: approval.argumentsSha256.toUpperCase() }, "another spelling"],
      [{ decision: ApprovalDecision.UNSPECIFIED }, "no decision"],
      [{ decision: ANSWER }, "no answer"],
      [{ decision: ANSWER, answerJson: "{" }, "an answer that is no JSON"],
      [{ decision: APPROVE, answerJson: "{}" }, "an answer to an approval"],
      [{ decision: DENY, comment: "x".repeat(2_001) }, "a comment that is too long"],
      [{ decision: ANSWER, answerJson: JSON.stringify("x".repeat(262_144)) }, "an answer that is too long"],
      [{ editedArgumentsJson: JSON.stringify({ amount: "x".repeat(1024 * 1024) }) }, "arguments that are too long"],
    ];
    for (const [more, what] of wrong) {
      assert.deepEqual(
        await refusal(decide(mesh.one, boss, approval, more)),
        ["InvalidArgument", "FIELD_INVALID"],
        what,
      );
    }
    const { approval: after } = await mesh.one.approvals.getApproval({ approvalId: approval.approvalId }, callAs(boss));
    assert.equal(after?.state, ApprovalState.PENDING);
  });

  test("the first decision counts: the same again is answered with it, another is refused", async () => {
    const { approval } = await asked();
    const [first, ...others] = await Promise.all(
      Array.from({ length: 8 }, () => decide(mesh.one, boss, approval, { comment: "yes" })),
    );
    for (const other of others) assert.deepEqual(other.approval, first?.approval);
    const again = await decide(mesh.one, principalOf(me.tenantId, ["approvals:resolve"]), approval, { comment: "yes" });
    assert.equal(again.approval?.resolvedBy, boss.subject);
    const error = await rejection(decide(mesh.one, boss, approval, { decision: ApprovalDecision.DENY }));
    assert.equal(ConnectError.from(error).code, Code.FailedPrecondition);
    assert.deepEqual([reasonOf(error), factsOf(error)["state"]], ["APPROVAL_ALREADY_RESOLVED", "APPROVED"]);
    assert.equal((await auditOf(approval)).length, 2);
  });

  test("of two decisions at the same time one counts", async () => {
    const { runId, approval } = await asked();
    const both = await Promise.allSettled([
      decide(mesh.one, boss, approval),
      decide(mesh.one, boss, approval, { decision: ApprovalDecision.DENY }),
    ]);
    assert.deepEqual(both.map(({ status }) => status).toSorted(), ["fulfilled", "rejected"]);
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    const resolutions = (await storedEvents(mesh, me, runId)).filter(({ type }) => type === "approval_resolved");
    assert.equal(resolutions.length, 1);
  });

  test("a request id is for one decision", async () => {
    const { approval } = await asked();
    const { approval: first } = await decide(mesh.one, boss, approval, { requestId: "r1" });
    assert.deepEqual((await decide(mesh.one, boss, approval, { requestId: "r1" })).approval, first);
    const other = decide(mesh.one, boss, approval, { requestId: "r1", comment: "other" });
    assert.deepEqual(await refusal(other), ["InvalidArgument", "IDEMPOTENCY_KEY_REUSED"]);
  });

  test("is not decided by the credential that the run works for, nor without the scope", async () => {
    const { approval } = await asked();
    assert.deepEqual(await refusal(decide(mesh.one, me, approval)), ["PermissionDenied", "APPROVER_NOT_ALLOWED"]);
    const { approval: seen } = await mesh.one.approvals.getApproval({ approvalId: approval.approvalId }, callAs(me));
    assert.equal(seen?.state, ApprovalState.PENDING, "it may look");
    const all = TENANT_SCOPES.filter((scope) => scope !== "approvals:resolve");
    const other = principalOf(me.tenantId, all);
    assert.deepEqual(await refusal(decide(mesh.one, other, approval)), ["PermissionDenied", "SCOPE_MISSING"]);
  });

  test("with four eyes: not by the run's user either, with whatever credential", async () => {
    mesh.neighbours.agent = { ...mesh.neighbours.agent, approvalPolicy: { requiresOtherPrincipal: true } };
    const { approval } = await asked({ endUserId: "ada" });
    assert.equal(approval.requiresOtherPrincipal, true);
    const scopes = ["approvals:resolve", "sessions:read_all"];
    const ada = principalOf(me.tenantId, scopes, { userId: "ada" });
    assert.deepEqual(await refusal(decide(mesh.one, ada, approval)), ["PermissionDenied", "APPROVER_NOT_ALLOWED"]);
    const bob = principalOf(me.tenantId, scopes, { userId: "bob" });
    assert.equal((await decide(mesh.one, bob, approval)).approval?.state, ApprovalState.APPROVED);
  });

  test("without it the user may, with another credential", async () => {
    const { approval } = await asked({ endUserId: "ada" });
    const ada = principalOf(me.tenantId, ["approvals:resolve"], { userId: "ada" });
    assert.equal((await decide(mesh.one, ada, approval)).approval?.state, ApprovalState.APPROVED);
  });

  test("belongs to the run's user and tenant: for others there is none", async () => {
    const { approval } = await asked({ endUserId: "ada" });
    const strangers = [
      principalOf(me.tenantId, ["approvals:read", "approvals:resolve"], { userId: "eve" }),
      principalOf(newId("ten"), ["approvals:read", "approvals:resolve"]),
    ];
    for (const stranger of strangers) {
      const { approvalId } = approval;
      assert.deepEqual(await refusal(mesh.one.approvals.getApproval({ approvalId }, callAs(stranger))), [
        "NotFound",
        "RESOURCE_NOT_FOUND",
      ]);
      assert.deepEqual(await refusal(decide(mesh.one, stranger, approval)), ["NotFound", "RESOURCE_NOT_FOUND"]);
      assert.deepEqual((await mesh.one.approvals.listApprovals({}, callAs(stranger))).approvals, []);
    }
  });

  test("lists are filtered and paged", async () => {
    const runs = [await asked(), await asked(), await asked()];
    const list = (request: object) => mesh.one.approvals.listApprovals(request, callAs(boss));
    const ids = ({ approvals }: { approvals: readonly Approval[] }) => approvals.map(({ approvalId }) => approvalId);
    const newestFirst = runs.map(({ approval }) => approval.approvalId).toReversed();
    const first = await list({ pageSize: 2 });
    const second = await list({ pageSize: 2, pageToken: first.nextPageToken });
    assert.deepEqual([...ids(first), ...ids(second)], newestFirst);
    assert.equal(second.nextPageToken, "");
    const [one] = runs;
    assert.ok(one);
    await decide(mesh.one, boss, one.approval);
    assert.deepEqual(ids(await list({ state: ApprovalState.PENDING })), newestFirst.slice(0, 2));
    assert.deepEqual(ids(await list({ sessionId: one.approval.sessionId })), [one.approval.approvalId]);
  });

  test("expires: that counts as a denial, the run goes on, and a decision comes too late", async () => {
    const { runId, approval } = await asked();
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute("UPDATE agent.approvals SET expire_time = clock_timestamp() WHERE approval_id = $1", [
        approval.approvalId,
      ]),
    );
    assert.deepEqual(await refusal(decide(mesh.one, boss, approval)), ["FailedPrecondition", "APPROVAL_EXPIRED"]);
    await inState(mesh.one, me, runId, RunState.COMPLETED);
    assert.deepEqual(await refusal(decide(mesh.one, boss, approval)), ["FailedPrecondition", "APPROVAL_EXPIRED"]);
    const [[text, isError] = []] = answersIn(await storedEvents(mesh, me, runId));
    assert.match(text ?? "", /in time/);
    assert.deepEqual([isError, executed], [true, []]);
    assert.deepEqual((await auditOf(approval)).at(-1), { type: "approval.expired", subject: "service:agent" });
  });

  test("the policy decides which calls need one, and for how long", async () => {
    const policy = (approvalPolicy: NonNullable<typeof mesh.neighbours.agent.approvalPolicy>) => {
      mesh.neighbours.agent = { ...mesh.neighbours.agent, approvalPolicy };
    };
    const outcome = async (tool: string) => {
      mesh.model.reset();
      mesh.model.script({ content: [toolUse(tool, { amount: 1 })] }, says("Over."));
      return (await mesh.one.chat.chat({ message: "go" }, callAs(me))).state;
    };
    const { SUSPENDED, COMPLETED } = RunState;
    mesh.neighbours.agent = { ...mesh.neighbours.agent, tools: ["pay", "look", "vague"] };
    mesh.neighbours.tools.set("vague", { risk: 0 });
    assert.deepEqual([await outcome("look"), await outcome("vague")], [COMPLETED, SUSPENDED], "unstated is the worst");
    policy({ minRisk: ApprovalThreshold.NEVER });
    assert.deepEqual([await outcome("pay"), await outcome("vague")], [COMPLETED, COMPLETED]);
    policy({ minRisk: ApprovalThreshold.NEVER, tools: ["look"] });
    assert.deepEqual([await outcome("pay"), await outcome("look")], [COMPLETED, SUSPENDED]);
    policy({ minRisk: ApprovalThreshold.READ_ONLY });
    assert.equal(await outcome("look"), SUSPENDED);
    policy({ expireAfter: { seconds: 90n } });
    const { approval } = await asked();
    assert.ok(Math.abs(Number(approval.expireTime?.seconds) - Number(approval.createTime?.seconds) - 90) <= 5);
  });

  test("what the agent hides is hidden in events; the approval shows who decides what is really done", async () => {
    mesh.neighbours.agent = { ...mesh.neighbours.agent, adapter: "finance" };
    mesh.neighbours.tools.set("pay", { risk: 3 });
    const args = '{"to":"6222021234567890"}';
    mesh.model.script({ content: [toolUse("pay", { to: "6222021234567890" })] }, says("Over."));
    const answer = await mesh.one.chat.chat({ message: "go" }, callAs(me));
    const [pending] = answer.pendingApprovals;
    assert.ok(pending);
    assert.equal(pending.argumentsJson, '{"to":"**** 7890"}');
    assert.equal(pending.argumentsSha256, sha256(args));
    const { approval } = await mesh.one.approvals.getApproval({ approvalId: pending.approvalId }, callAs(boss));
    assert.equal(approval?.argumentsJson, args);
    await mesh.one.runs.cancelRun({ runId: answer.runId }, callAs(me));
    const { messages } = await mesh.one.sessions.listMessages({ sessionId: answer.sessionId }, callAs(me));
    assert.doesNotMatch(JSON.stringify(messages.map(({ toolCalls }) => toolCalls)), /6222/, "nor in what was stored");
  });
});
