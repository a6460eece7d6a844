import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { MessageRole, RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { Session } from "#gen/agentmesh/agent/v1/session_service_pb.ts";
import { newId } from "#platform/id.ts";
import { reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, violations } from "#platform/testing/service-under-test.ts";
import { FORK_LIMITS } from "../store/fork-store.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { read } from "../testing/watching.ts";

describe("ForkSession", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({ agent: { lease: "5s", heartbeat: "500ms" } });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.resolved = {};
    mesh.neighbours.executeTool = async ({ argumentsJson }) => argumentsJson;
  });

  const fork = async (
    request: { sessionId: string; messageId?: string; title?: string; requestId?: string },
    by = me,
  ) => (await mesh.one.sessions.forkSession(request, callAs(by))).session as Session;
  const messagesOf = async (sessionId: string) =>
    (await mesh.one.sessions.listMessages({ sessionId, pageSize: 200 }, callAs(me))).messages;
  const chat = (message: string, sessionId: string, answer: string) => {
    mesh.model.script(says(answer));
    return mesh.one.chat.chat({ message, sessionId }, callAs(me));
  };
  const asked = () =>
    ((mesh.model.requests.at(-1)?.body.messages ?? []) as { role: string; content: unknown }[]).map(({ content }) =>
      JSON.stringify(content),
    );

  /** Three questions and answers, the second one with a tool. */
  async function conversation(): Promise<string> {
    const { sessionId } = await chat("one?", "", "One.");
    mesh.model.script(turnOf(toolUse("echo", { n: 2 }), toolUse("echo", { n: 3 })), says("Two."));
    await mesh.one.chat.chat({ message: "two?", sessionId }, callAs(me));
    await chat("three?", sessionId, "Three.");
    return sessionId;
  }

  test("copies everything, with ids, times and labels; then each of the two goes on by itself", async () => {
    const sessionId = await conversation();
    const labels = { colour: "red" };
    await mesh.one.sessions.updateSession({ session: { sessionId, title: "Numbers", labels } }, callAs(me));
    const before = await messagesOf(sessionId);
    const { session: original } = await mesh.one.sessions.getSession({ sessionId }, callAs(me));
    const copy = await fork({ sessionId });
    assert.notEqual(copy.sessionId, sessionId);
    assert.deepEqual([copy.title, copy.labels, copy.activeRunId], ["Numbers", labels, ""]);
    assert.equal(copy.messageCount, original?.messageCount);
    assert.deepEqual(
      [copy.forkedFromSessionId, copy.forkedFromMessageId],
      [sessionId, before.at(-1)?.messageId ?? "none"],
    );
    assert.deepEqual(await messagesOf(copy.sessionId), before);
    await chat("four?", copy.sessionId, "Four.");
    assert.equal(asked().length, 9, "the model sees the whole conversation and the new question");
    assert.deepEqual(await messagesOf(sessionId), before, "the original is untouched");
    assert.deepEqual((await mesh.one.sessions.getSession({ sessionId }, callAs(me))).session, original);
    await chat("other?", sessionId, "Other.");
    assert.doesNotMatch(asked().join(), /four/);
    assert.equal((await messagesOf(copy.sessionId)).length, before.length + 2);
    await mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
    assert.equal((await messagesOf(copy.sessionId)).length, before.length + 2);
  });

  test("up to any message; one that calls tools brings their results, so that the copy can be gone on with", async () => {
    const sessionId = await conversation();
    const all = await messagesOf(sessionId);
    const { USER, ASSISTANT, TOOL } = MessageRole;
    assert.deepEqual(
      all.map(({ role }) => role),
      [USER, ASSISTANT, USER, ASSISTANT, TOOL, TOOL, ASSISTANT, USER, ASSISTANT],
    );
    // How many messages are shown of the copy that ends with each one.
    const expected = [1, 2, 3, 6, 6, 6, 7, 8, 9];
    for (const [i, { messageId }] of all.entries()) {
      const copy = await fork({ sessionId, messageId, title: `copy ${i}` });
      assert.equal(copy.title, `copy ${i}`);
      const copied = await messagesOf(copy.sessionId);
      assert.deepEqual(copied, all.slice(0, expected[i]), `up to ${i}`);
      assert.equal(copy.forkedFromMessageId, copied.at(-1)?.messageId);
      const answer = await chat("and now?", copy.sessionId, "Now.");
      assert.equal(answer.state, RunState.COMPLETED);
      assert.equal((await messagesOf(copy.sessionId)).length, (expected[i] ?? 0) + 2);
    }
    const empty = await mesh.one.sessions.createSession({ session: { title: "nothing" } }, callAs(me));
    const nothing = await fork({ sessionId: empty.session?.sessionId ?? "" });
    assert.deepEqual([nothing.messageCount, nothing.forkedFromMessageId, nothing.title], [0, "", "nothing"]);
  });

  test("a summary is copied where what is behind it is", async () => {
    const { sessionId } = await chat("one?", "", "One.");
    for (const n of ["two", "three", "four"]) await chat(`${n}?`, sessionId, `${n}.`);
    const all = await messagesOf(sessionId);
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute(
        `INSERT INTO agent.compactions (tenant_id, session_id, compaction_id, run_id, kept_positions, first_kept_position,
           summary_id, summary, messages, tokens_before, tokens_after)
         VALUES (agentmesh.current_tenant(), $1, $2, 'run_1', '{1}', 5, 'msg_sum', $3, 3, 100, 10)`,
        [
          sessionId,
          newId("cmp"),
          JSON.stringify({ role: "user", hidden: true, content: [{ type: "text", text: "SUM" }] }),
        ],
      ),
    );
    const behind = await fork({ sessionId, messageId: all[5]?.messageId ?? "" });
    await chat("and?", behind.sessionId, "So.");
    assert.match(asked().join(), /SUM/);
    assert.doesNotMatch(asked().join(), /two/);
    const before = await fork({ sessionId, messageId: all[3]?.messageId ?? "" });
    await chat("and?", before.sessionId, "So.");
    assert.doesNotMatch(asked().join(), /SUM/);
    assert.match(asked().join(), /two/);
  });

  test("a session with a run in progress is copied as far as it is stored", async () => {
    const { sessionId } = await chat("one?", "", "One.");
    mesh.model.script(turnOf(toolUse("echo", { n: 1 })), { ...says("a slow answer of a few words"), paceMs: 100 });
    const { run } = await mesh.one.runs.startRun({ message: "two?", sessionId }, callAs(me));
    await until(() => mesh.model.requests.length === 3, "the answer behind the tool's result");
    const copy = await fork({ sessionId });
    assert.equal(copy.activeRunId, "");
    const copied = await messagesOf(copy.sessionId);
    assert.deepEqual(copied, (await messagesOf(sessionId)).slice(0, copied.length));
    assert.equal(copied.at(-1)?.role, MessageRole.TOOL);
    assert.equal((await chat("never mind", copy.sessionId, "Fine.")).state, RunState.COMPLETED);
    assert.equal(await read(mesh.one, me, run?.runId ?? "").ended, undefined);
  });

  test("once per key; of what is not there, or is another's, there is nothing to copy", async () => {
    const sessionId = await conversation();
    const requestId = randomUUID();
    const copies = await Promise.all(Array.from({ length: 5 }, () => fork({ sessionId, requestId })));
    assert.equal(new Set(copies.map((copy) => copy.sessionId)).size, 1);
    assert.equal(reasonOf(await rejection(fork({ sessionId, title: "x", requestId }))), "IDEMPOTENCY_KEY_REUSED");
    const other = await chat("else?", "", "Else.");
    const [foreign] = await messagesOf(other.sessionId);
    for (const messageId of [newId("msg"), foreign?.messageId ?? ""]) {
      assert.equal(reasonOf(await rejection(fork({ sessionId, messageId }))), "RESOURCE_NOT_FOUND");
    }
    const stranger = principalOf(newId("ten"), TENANT_SCOPES);
    const reader = principalOf(me.tenantId, [...TENANT_SCOPES, "sessions:read_all"], { userId: "somebody" });
    for (const by of [stranger, reader]) {
      assert.equal(reasonOf(await rejection(fork({ sessionId }, by))), "RESOURCE_NOT_FOUND");
    }
    const audited = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query("SELECT resource, details FROM agent.audit WHERE type = 'session.forked'"),
    );
    assert.deepEqual(audited, [
      { resource: copies[0]?.sessionId, details: { forked_from: sessionId, messages: copies[0]?.messageCount } },
    ]);
  });

  test("the copy belongs to the owner of the session, whoever makes it", async () => {
    const { session } = await mesh.one.sessions.createSession({ session: { endUserId: "ada" } }, callAs(me));
    const copy = await fork({ sessionId: session?.sessionId ?? "" });
    assert.equal(copy.endUserId, "ada");
    const ada = principalOf(me.tenantId, TENANT_SCOPES, { userId: "ada" });
    assert.equal((await fork({ sessionId: copy.sessionId }, ada)).endUserId, "ada");
  });

  test(`at most ${FORK_LIMITS.messages} messages of ${FORK_LIMITS.bytes} bytes`, async () => {
    const { sessionId } = await chat("one?", "", "One.");
    const fill = (to: number, bytes: number) =>
      mesh.db.tenant(me.tenantId, async (tx) => {
        await tx.execute(
          `INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
           SELECT agentmesh.current_tenant(), $1, n, 'msg_' || n, 'run_1', '{"role":"user","content":[]}', $3
           FROM generate_series((SELECT message_count + 1 FROM agent.sessions WHERE session_id = $1), $2::int) AS n`,
          [sessionId, to, bytes],
        );
        await tx.execute("UPDATE agent.sessions SET message_count = $2 WHERE session_id = $1", [sessionId, to]);
      });
    await fill(FORK_LIMITS.messages, 10);
    assert.equal((await fork({ sessionId })).messageCount, FORK_LIMITS.messages);
    await fill(FORK_LIMITS.messages + 1, 10);
    assert.deepEqual(await violations(fork({ sessionId })), ["message_id"]);
    assert.equal(
      (await fork({ sessionId, messageId: `msg_${FORK_LIMITS.messages}` })).messageCount,
      FORK_LIMITS.messages,
    );
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute("UPDATE agent.messages SET size = $2 WHERE session_id = $1 AND position <= 64", [
        sessionId,
        FORK_LIMITS.bytes / 64,
      ]),
    );
    assert.deepEqual(await violations(fork({ sessionId, messageId: "msg_100" })), ["message_id"]);
    assert.equal((await fork({ sessionId, messageId: "msg_63" })).messageCount, 63);
  });
});
