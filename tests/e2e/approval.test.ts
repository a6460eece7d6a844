import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { describeMesh } from "./mesh-under-test.ts";
import { errorOf, RestClient } from "./rest-client.ts";

/** A process that another one's change reaches by the bus only: relay and bus take part of a second. */
const TOLD_WITHIN_MS = 5_000;
const TRANSFER = { from: "checking", to: "savings", amount: 25 };

describeMesh("money moves when somebody else has approved it", (mesh) => {
  const rest = () => new RestClient(mesh().baseUrl, mesh().adminKey);

  async function done(method: string, path: string, body?: object, by = rest()) {
    const answer = await by.call(method, path, body);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return answer.body;
  }

  /** A bank's assistant, which may move money. */
  async function banker(): Promise<string> {
    await done("PATCH", "/api/v1/tenants/me", { enabled_tools: ["check_balance", "transfer_funds"] });
    const tools = ["check_balance", "transfer_funds"];
    const agent = await done("POST", "/api/v1/tenants/me/agents", {
      name: `Bank ${randomUUID()}`,
      adapter: "finance",
      tools,
    });
    for (const end = performance.now() + TOLD_WITHIN_MS; ; await sleep(100)) {
      mesh().model.reset();
      mesh().model.script(says("Hello."));
      const { status } = await rest().call("POST", "/api/v1/chat", { message: "hi", agent_id: agent.agent_id });
      if (status === 200) return agent.agent_id;
      assert.ok(performance.now() < end, "the agent is known everywhere in time");
    }
  }

  /** A key that can decide, used through another gateway and replica where there is one. */
  async function approver(): Promise<RestClient> {
    const scopes = ["approvals:read", "approvals:resolve"];
    const { secret } = await done("POST", "/api/v1/api-keys", { name: "approver", scopes });
    const { mode, baseUrl } = mesh();
    const elsewhere = mode === "distributed" ? (await mesh().gatewayTo("agent-2")).baseUrl : baseUrl;
    return new RestClient(elsewhere, secret);
  }

  async function over(runId: string) {
    for (const end = performance.now() + 10_000; ; await sleep(50)) {
      const run = await done("GET", `/api/v1/runs/${runId}`);
      if (run.state === "RUN_STATE_COMPLETED") return run;
      assert.ok(performance.now() < end, JSON.stringify(run));
    }
  }

  test("a streamed turn ends as suspended; approved elsewhere it goes on, and the transfer is made once", async () => {
    const agent_id = await banker();
    const boss = await approver();
    mesh().model.reset();
    mesh().model.script(turnOf(toolUse("transfer_funds", TRANSFER)), says("It is done."));
    const shown = [];
    for await (const event of rest().stream("POST", "/api/v1/chat/stream", { message: "move 25", agent_id })) {
      shown.push({ event: event.event, ...JSON.parse(event.data) });
    }
    const [call, approval, final] = shown;
    assert.deepEqual(
      shown.map(({ event, type }) => [event, type]),
      [
        ["tool_call", "tool_call"],
        ["approval", "approval"],
        ["final", "final"],
      ],
    );
    const args = '{"from":"checking","to":"savings","amount":25,"note":""}';
    const { approval_id, arguments_sha256, seq, expire_time, ...rest_ } = approval;
    assert.deepEqual(rest_, {
      event: "approval",
      type: "approval",
      call_id: call.call_id,
      tool: "transfer_funds",
      args: JSON.parse(args),
      kind: "APPROVAL_KIND_CALL",
      risk: "RISK_CLASS_DESTRUCTIVE",
      reason: "risk",
      allowed_decisions: ["APPROVAL_DECISION_APPROVE", "APPROVAL_DECISION_DENY", "APPROVAL_DECISION_ANSWER"],
      requires_other_principal: false,
    });
    assert.equal(arguments_sha256, createHash("sha256").update(args).digest("hex"));
    assert.ok(Number(seq) > 0 && Date.parse(expire_time) > Date.now());
    assert.equal(final.state, "RUN_STATE_SUSPENDED");
    assert.deepEqual(
      final.pending_approvals.map((pending: { approval_id: string }) => pending.approval_id),
      [approval_id],
    );
    const watched: string[] = [];
    const watching = (async () => {
      for await (const { data } of rest().stream("GET", `/api/v1/runs/${final.run_id}/events:stream`)) {
        watched.push(String(JSON.parse(data).event?.type));
      }
    })();
    const decision = { decision: "APPROVAL_DECISION_APPROVE", arguments_sha256 };
    const path = `/api/v1/approvals/${approval_id}:resolve`;
    const own = await rest().call("POST", path, decision);
    assert.deepEqual([own.status, errorOf(own).reason], [403, "APPROVER_NOT_ALLOWED"]);
    const unseen = await boss.call("POST", path, { ...decision, arguments_sha256: "0".repeat(64) });
    assert.deepEqual([unseen.status, errorOf(unseen).fields], [400, ["arguments_sha256"]]);
    const listed = await done("GET", "/api/v1/approvals?state=APPROVAL_STATE_PENDING", undefined, boss);
    assert.equal(listed.approvals[0].arguments_json, args);
    const [first, second] = await Promise.all([done("POST", path, decision, boss), done("POST", path, decision, boss)]);
    assert.deepEqual(first.approval, second.approval);
    assert.equal(first.approval.state, "APPROVAL_STATE_APPROVED");
    const run = await over(final.run_id);
    assert.equal(run.response, "It is done.");
    await watching;
    const at = watched.lastIndexOf("run_suspended");
    assert.deepEqual(
      watched.slice(at + 1).filter((name) => /^(approval|run|tool_call_completed)/.test(name)),
      ["approval_resolved", "run_resumed", "tool_call_completed", "run_completed"],
    );
    assert.equal(await balance(agent_id), "4296.75", "25 have left the account once");
    const late = await boss.call("POST", path, { ...decision, decision: "APPROVAL_DECISION_DENY" });
    assert.deepEqual([late.status, errorOf(late).reason], [400, "APPROVAL_ALREADY_RESOLVED"]);
  });

  test("a whole turn is answered as suspended, and goes on with a denial", async () => {
    const agent_id = await banker();
    const boss = await approver();
    mesh().model.reset();
    mesh().model.script(turnOf(toolUse("transfer_funds", TRANSFER)), says("As you wish."));
    const before = await done("POST", "/api/v1/chat", { message: "move 25", agent_id });
    assert.equal(before.state, "RUN_STATE_SUSPENDED");
    const [pending] = before.pending_approvals;
    const { awaiting } = await done("GET", `/api/v1/runs/${before.run_id}`);
    assert.deepEqual(
      awaiting.map(({ kind, approval_id }: { kind: string; approval_id: string }) => [kind, approval_id]),
      [["AWAITED_KIND_APPROVAL", pending.approval_id]],
    );
    const { arguments_sha256 } = pending;
    const decision = { decision: "APPROVAL_DECISION_DENY", arguments_sha256, comment: "not today" };
    await done("POST", `/api/v1/approvals/${pending.approval_id}:resolve`, decision, boss);
    assert.equal((await over(before.run_id)).response, "As you wish.");
    assert.match(JSON.stringify(mesh().model.requests.at(-1)?.body.messages), /not today/);
  });

  /** Of the checking account, as its tool says it. */
  async function balance(agent_id: string): Promise<string> {
    mesh().model.reset();
    mesh().model.script(turnOf(toolUse("check_balance", { account: "checking" })), says("There."));
    await done("POST", "/api/v1/chat", { message: "balance", agent_id });
    const asked = JSON.stringify(mesh().model.requests.at(-1)?.body.messages);
    return /\\"balance\\":\\"?([0-9.]+)/.exec(asked)?.[1] ?? asked;
  }
});
