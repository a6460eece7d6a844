import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { MessageRole } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal, violations } from "#platform/testing/service-under-test.ts";
import { Sessions } from "../sessions/sessions.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { erased } from "../testing/erased.ts";

describe("SessionService", { skip: skipWithoutPostgres() }, () => {
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

  const create = async (session: object = {}, requestId = "", principal = me) => {
    const created = await mesh.one.sessions.createSession({ session, requestId }, callAs(principal));
    assert.ok(created.session !== undefined);
    return created.session;
  };
  const update = (session: object, paths: string[] = [], requestId = "") =>
    mesh.one.sessions.updateSession({ session, updateMask: { paths }, requestId }, callAs(me));
  const remove = (sessionId: string, more: object = {}) =>
    mesh.one.sessions.deleteSession({ sessionId, ...more }, callAs(me));
  const audited = (principal = me) =>
    mesh.db.tenant(principal.tenantId, (tx) =>
      tx.query<{ type: string; details: object }>("SELECT type, details FROM agent.audit ORDER BY time"),
    );

  test("creates a session once for a key, whatever order its labels come in", async () => {
    const requestId = randomUUID();
    const first = await create({ title: "Trip", labels: { a: "1", b: "2" } }, requestId);
    const again = await create({ labels: { b: "2", a: "1" }, title: "Trip" }, requestId);
    assert.deepEqual(again, first);
    assert.equal(first.title, "Trip");
    assert.deepEqual(first.labels, { a: "1", b: "2" });
    assert.equal(first.messageCount, 0);
    const refused = await refusal(mesh.one.sessions.createSession({ session: {}, requestId }, callAs(me)));
    assert.equal(refused.reason, "IDEMPOTENCY_KEY_REUSED");
    assert.deepEqual(
      (await audited()).map(({ type }) => type),
      ["session.created"],
    );
  });

  test("changes what is populated, or what the mask names; everything by a star, nothing else", async () => {
    const { sessionId } = await create({ title: "one", labels: { a: "1" }, agentId: "agt_1" });
    const now = async () => (await mesh.one.sessions.getSession({ sessionId }, callAs(me))).session;
    await update({ sessionId, title: "two" });
    assert.deepEqual([(await now())?.title, (await now())?.labels], ["two", { a: "1" }]);
    await update({ sessionId, labels: { b: "2" } }, ["title"]);
    assert.deepEqual([(await now())?.title, (await now())?.labels], ["", { a: "1" }]);
    await update({ sessionId, title: "three" }, ["*"]);
    assert.deepEqual([(await now())?.title, (await now())?.labels, (await now())?.agentId], ["three", {}, ""]);
    for (const path of ["end_user_id", "etag", "nothing", "session.title", ""]) {
      const refused = await rejection(update({ sessionId, title: "no" }, [path]));
      assert.equal(reasonOf(refused), "UPDATE_MASK_INVALID", path);
    }
    assert.deepEqual(await violations(update({ title: "no" })), ["session.session_id"]);
    assert.equal((await now())?.title, "three");
    const details = (await audited()).flatMap(({ type, details: one }) => (type === "session.updated" ? [one] : []));
    assert.deepEqual(details, [
      { fields: ["title"] },
      { fields: ["title"] },
      { fields: ["agentId", "labels", "title"] },
    ]);
  });

  test("changes and deletes the version that was read, or none; a repeat with the same key is no second change", async () => {
    const { sessionId, etag } = await create({ title: "one" });
    const requestId = randomUUID();
    const changed = await update({ sessionId, title: "two", etag }, [], requestId);
    assert.notEqual(changed.session?.etag, etag);
    assert.equal(reasonOf(await rejection(update({ sessionId, title: "three", etag }))), "ETAG_MISMATCH");
    assert.deepEqual(await update({ sessionId, title: "two", etag }, [], requestId), changed);
    assert.equal(reasonOf(await rejection(remove(sessionId, { etag }))), "ETAG_MISMATCH");
    const fresh = { etag: changed.session?.etag, requestId };
    await remove(sessionId, fresh);
    await remove(sessionId, fresh);
    assert.equal(reasonOf(await rejection(remove(sessionId))), "RESOURCE_NOT_FOUND");
    assert.equal((await audited()).filter(({ type }) => type === "session.deleted").length, 1);
  });

  test("deletes a session with all that was said and done in it, and its run in progress first", async () => {
    const mine = randomUUID();
    const { runId: first } = await mesh.one.chat.chat({ message: "one", sessionId: mine }, callAs(me));
    const { run } = await mesh.one.runs.startRun({ message: "[[hang]]", sessionId: mine }, callAs(me));
    await remove(mine);
    await until(() => mesh.model.requests.at(-1)?.abandoned === true, "the model's stream to be broken off");
    await erased(mesh.db, me.tenantId);
    const left = await mesh.db.tenant(me.tenantId, async (tx) => {
      const tables = ["sessions", "messages", "runs", "run_events"];
      return Promise.all(tables.map(async (table) => (await tx.query(`SELECT 1 FROM agent.${table}`)).length));
    });
    assert.deepEqual(left, [0, 0, 0, 0]);
    for (const runId of [first, run?.runId ?? ""]) {
      assert.equal(reasonOf(await rejection(mesh.one.runs.getRun({ runId }, callAs(me)))), "RESOURCE_NOT_FOUND");
    }
    const types = (await audited()).map(({ type }) => type);
    assert.deepEqual(types.slice(-3), ["run.cancelled", "session.deleted", "session.erased"]);
    const again = await mesh.one.chat.chat({ message: "two", sessionId: mine }, callAs(me));
    assert.equal(mesh.model.requests.at(-1)?.body.messages.length, 1, "a new session under the same UUID");
    assert.equal(again.sessionId, mine);
  });

  test("does not delete a session in which a new turn has begun meanwhile", async () => {
    const { sessionId } = await create();
    const occupy = (runId: string) =>
      mesh.db.tenant(me.tenantId, (tx) => tx.execute("UPDATE agent.sessions SET active_run_id = $1", [runId]));
    await occupy("run_first");
    const cancelled: string[] = [];
    const sessions = new Sessions({
      database: mesh.db,
      async forgetContext() {},
      async cancelRun(_, runId) {
        cancelled.push(runId);
        await occupy("run_second");
      },
    });
    const call = { principal: me, signal: new AbortController().signal, requestId: "req_1", ip: "", userAgent: "" };
    const error = await rejection(sessions.delete(call, sessionId, { etag: "", requestId: "" }));
    assert.equal(reasonOf(error), "SESSION_BUSY");
    assert.deepEqual(factsOf(error), { run_id: "run_second" });
    assert.deepEqual(cancelled, ["run_first"]);
    assert.equal((await mesh.one.sessions.getSession({ sessionId }, callAs(me))).session?.sessionId, sessionId);
  });

  test("lists the newest first, in pages that neither repeat nor leave out, also while others are created", async () => {
    const ids: string[] = [];
    for (let i = 0; i < 7; i++) ids.unshift((await create({ agentId: i % 2 === 0 ? "agt_a" : "" })).sessionId);
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await mesh.one.sessions.listSessions({ pageSize: 3, pageToken }, callAs(me));
      assert.ok(page.sessions.length <= 3);
      seen.push(...page.sessions.map(({ sessionId }) => sessionId));
      pageToken = page.nextPageToken;
      await create();
    } while (pageToken !== "");
    assert.deepEqual(seen, ids);
    const skipped = await mesh.one.sessions.listSessions({ skip: 4, pageSize: 200 }, callAs(me));
    assert.deepEqual(
      skipped.sessions.slice(-6).map(({ sessionId }) => sessionId),
      ids.slice(1),
    );
    const filtered = await mesh.one.sessions.listSessions({ agentId: "agt_a" }, callAs(me));
    assert.equal(filtered.sessions.length, 4);
    const { nextPageToken } = await mesh.one.sessions.listSessions({ pageSize: 1 }, callAs(me));
    const elsewhere = mesh.one.sessions.listSessions({ agentId: "agt_a", pageToken: nextPageToken }, callAs(me));
    assert.equal((await refusal(elsewhere)).reason, "PAGE_TOKEN_INVALID");
  });

  test("shows a machine credential every user's sessions, or one user's; a user its own; by sessions:read_all all", async () => {
    const scopes = TENANT_SCOPES.filter((scope) => scope !== "sessions:read_all");
    const [jo, bo] = ["usr_jo", "usr_bo"].map((userId) => principalOf(me.tenantId, scopes, { userId }));
    const reader = principalOf(me.tenantId, TENANT_SCOPES, { userId: "usr_reader" });
    const list = async (principal: Principal | undefined, endUserId = "") => {
      assert.ok(principal !== undefined);
      const { sessions } = await mesh.one.sessions.listSessions({ endUserId }, callAs(principal));
      return sessions.map((session) => session.endUserId).toSorted();
    };
    for (const principal of [jo, bo, me]) await create({}, "", principal);
    await create({ endUserId: "customer 7" });
    assert.deepEqual(await list(me), ["", "customer 7", "usr_bo", "usr_jo"]);
    assert.deepEqual(await list(me, "customer 7"), ["customer 7"]);
    assert.deepEqual(await list(jo), ["usr_jo"]);
    assert.deepEqual(await list(jo, "usr_bo"), []);
    assert.deepEqual(await list(reader), ["", "customer 7", "usr_bo", "usr_jo"]);
    assert.deepEqual(await list(reader, "usr_bo"), ["usr_bo"]);
  });

  test("pages messages by what is shown: each tool result for itself, and never more than asked for", async () => {
    mesh.model.script(
      turnOf(
        { type: "text", text: "Both." },
        toolUse("echo", { n: 1 }),
        toolUse("echo", { n: 2 }),
        toolUse("echo", { n: 3 }),
      ),
      says("Done."),
    );
    const { sessionId } = await mesh.one.chat.chat({ message: "go" }, callAs(me));
    const all = (await mesh.one.sessions.listMessages({ sessionId }, callAs(me))).messages;
    assert.deepEqual(
      all.map(({ role }) => role),
      [
        MessageRole.USER,
        MessageRole.ASSISTANT,
        MessageRole.TOOL,
        MessageRole.TOOL,
        MessageRole.TOOL,
        MessageRole.ASSISTANT,
      ],
    );
    assert.deepEqual(
      all.slice(2, 5).map(({ callId }) => callId),
      all[1]?.toolCalls.map(({ callId }) => callId),
    );
    for (const pageSize of [1, 2, 4, 6]) {
      const paged: typeof all = [];
      let pageToken = "";
      do {
        const page = await mesh.one.sessions.listMessages({ sessionId, pageSize, pageToken }, callAs(me));
        assert.ok(page.messages.length <= pageSize);
        paged.push(...page.messages);
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      assert.deepEqual(paged, all, `by ${pageSize}`);
    }
  });
});
