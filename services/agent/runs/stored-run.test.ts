import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { completion, notices, payloads, playRun } from "../testing/play-run.ts";
import { assertRising, read } from "../testing/watching.ts";

describe("a run in the database", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh();
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
  });

  test("behaviour 15: after a crash behind a stored call the next run repairs the history before its first request", async () => {
    mesh.model.script(says("Yes."));
    const { sessionId, runId } = await playRun(mesh, me);
    const orphan = {
      role: "assistant",
      content: [{ type: "tool_call", callId: newId("call"), name: "echo", argumentsJson: "{}" }],
    };
    await mesh.db.tenant(me.tenantId, async (tx) => {
      await tx.execute(
        `INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
         SELECT tenant_id, session_id, message_count + 1, $2, $3, $4, 1 FROM agent.sessions WHERE session_id = $1`,
        [sessionId, newId("msg"), runId, JSON.stringify(orphan)],
      );
      await tx.execute("UPDATE agent.sessions SET message_count = message_count + 1 WHERE session_id = $1", [
        sessionId,
      ]);
    });
    // The scripted server refuses what the provider would.
    mesh.model.script(says("Still here."));
    const next = await playRun(mesh, me, { sessionId, message: "and now?" });
    assert.deepEqual(notices(next.stored), ["HISTORY_REPAIRED"]);
    assert.equal(completion(next).response, "Still here.");
  });

  test("behaviour 22: events carry run, turn, number and time, and a replay gives the same durable ones", async () => {
    mesh.model.script(turnOf(toolUse("echo", {})), says("Done."));
    const { runId, events, stored } = await playRun(mesh, me);
    assertRising(events);
    for (const event of events) {
      assert.equal(event.runId, runId);
      assert.ok((event.occurredAt?.seconds ?? 0n) > 0n);
    }
    assert.deepEqual(
      payloads(stored, "stepStarted").map(({ step }) => step),
      [1, 2],
    );
    assert.deepEqual(
      payloads(stored, "stepCompleted").map(({ step }) => step),
      [1, 2],
    );
    const replay = read(mesh.one, me, runId);
    assert.equal(await replay.ended, undefined);
    assert.deepEqual(replay.events, stored);
  });

  test("behaviour 22: messages keep the ids under which they were shown", async () => {
    mesh.model.script(says("Yes."));
    const { sessionId, stored } = await playRun(mesh, me);
    const { messages } = await mesh.one.sessions.listMessages({ sessionId }, callAs(me));
    const shown = stored.find(({ payload }) => payload.case === "messageCompleted")?.itemId;
    const asked = payloads(stored, "runStarted")[0]?.inputMessageId;
    assert.deepEqual(
      messages.map(({ messageId }) => messageId),
      [asked, shown],
    );
  });
});
