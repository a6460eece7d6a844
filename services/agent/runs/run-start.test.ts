import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import type { StartRunRequest } from "#gen/agentmesh/agent/v1/run_service_pb.ts";
import { newId } from "#platform/id.ts";
import { factsOf, reasonOf } from "#platform/rpc/errors.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { rejection, until } from "#platform/rpc/test-mesh.contract.ts";
import { says } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal, violations } from "#platform/testing/service-under-test.ts";
import { HISTORY_LIMITS, historyOf, readContext } from "../store/session-context.ts";
import { insertSession, sessionById } from "../store/session-store.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";

const HANGS = "[[hang]]";

describe("starting a run", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    mesh = await openAgentMesh({ replicas: 2 });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
    mesh.neighbours.agentIds.clear();
    mesh.neighbours.maxMessageCharacters = 100_000n;
  });

  type Request = Partial<Omit<StartRunRequest, "$typeName" | "attachments" | "$unknown">>;
  const start = async (request: Request, principal = me, replica = mesh.one) => {
    const { run } = await replica.runs.startRun({ message: "hi", ...request }, callAs(principal));
    assert.ok(run !== undefined);
    return run;
  };
  const idle = () =>
    until(() => mesh.replicas.every(({ service }) => service.liveRuns.size === 0), "all runs to have ended");
  const count = async (table: string) =>
    mesh.db.tenant(me.tenantId, async (tx) => (await tx.query(`SELECT 1 FROM agent.${table}`)).length);

  test("twenty times at once with one key on two replicas begins one run, and says so to all", async () => {
    const requestId = randomUUID();
    const context = { task_complexity: "high", b: [1, 2] };
    const runs = await Promise.all(
      Array.from({ length: 20 }, (_, i) => start({ requestId, context }, me, mesh.replicas[i % 2])),
    );
    assert.equal(new Set(runs.map(({ runId }) => runId)).size, 1);
    assert.deepEqual([await count("runs"), await count("sessions")], [1, 1]);
    await idle();
    assert.equal(mesh.model.requests.length, 1);
  });

  test("with a key that was used for other content is refused, and with another caller's is a run of its own", async () => {
    const requestId = randomUUID();
    const first = await start({ requestId });
    for (const other of [{ message: "other" }, { agentId: "agt_default" }, { endUserId: "u" }, { context: { a: 1 } }]) {
      const refused = await refusal(mesh.one.runs.startRun({ message: "hi", ...other, requestId }, callAs(me)));
      assert.equal(refused.reason, "IDEMPOTENCY_KEY_REUSED", JSON.stringify(other));
    }
    const another = principalOf(me.tenantId, TENANT_SCOPES);
    assert.notEqual((await start({ requestId }, another)).runId, first.runId);
    await idle();
  });

  test("with a used key attaches whatever has become of agent and session since", async () => {
    mesh.neighbours.agentIds.add("agt_1");
    const request = { requestId: randomUUID(), agentId: "agt_1" };
    const first = await start(request);
    mesh.neighbours.agentIds.clear();
    assert.equal((await start(request)).runId, first.runId);
    assert.equal(reasonOf(await rejection(start({ agentId: "agt_1" }))), "RESOURCE_NOT_FOUND");
    await idle();
  });

  test("answers with what a reader that has applied it has seen", async () => {
    const { run, appliedThroughSeq } = await mesh.one.runs.startRun({ message: "hi" }, callAs(me));
    assert.equal(appliedThroughSeq, 2n, "run_started, and step_started of its first step");
    assert.equal(run?.lastSeq, 2n);
    await idle();
    await mesh.settled();
  });

  test("behaviour 16: in a session that has a run in progress is refused by that run's name, also in a race", async () => {
    const { sessionId, runId } = await start({ message: HANGS });
    const busy = await rejection(start({ sessionId }));
    assert.equal(reasonOf(busy), "SESSION_BUSY");
    assert.deepEqual(factsOf(busy), { run_id: runId });
    await mesh.one.runs.cancelRun({ runId }, callAs(me));

    const racers = await Promise.allSettled(
      Array.from({ length: 8 }, (_, i) => start({ sessionId, message: HANGS }, me, mesh.replicas[i % 2])),
    );
    const won = racers.flatMap((one) => (one.status === "fulfilled" ? [one.value.runId] : []));
    assert.equal(won.length, 1);
    for (const one of racers) {
      if (one.status === "rejected") assert.deepEqual(factsOf(one.reason), { run_id: won[0] });
    }
    await mesh.two.runs.cancelRun({ runId: won[0] ?? "" }, callAs(me));
  });

  test("of two first turns under one new UUID at once: one session, one run, one refusal", async () => {
    const sessionId = randomUUID();
    const racers = await Promise.allSettled([1, 2].map(() => start({ sessionId, message: HANGS })));
    const [won] = racers.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const [lost] = racers.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
    assert.deepEqual(factsOf(lost), { run_id: won?.runId });
    assert.equal(await count("sessions"), 1);
    await mesh.one.runs.cancelRun({ runId: won?.runId ?? "" }, callAs(me));
  });

  test("belongs to the credential's user, or to the user that a machine credential names", async () => {
    const jo = principalOf(me.tenantId, TENANT_SCOPES, { userId: "usr_jo" });
    assert.equal((await start({ endUserId: "somebody" }, jo)).endUserId, "usr_jo", "a bound credential names nobody");
    assert.equal((await start({ endUserId: "somebody" })).endUserId, "somebody");
    assert.equal((await start({})).endUserId, "");
    await idle();
    const { sessionId } = await start({}, jo);
    await idle();
    // The tenant's own credential may go on in a user's session; if it names a user, in that user's only.
    assert.equal((await start({ sessionId })).endUserId, "usr_jo");
    await idle();
    assert.equal((await start({ sessionId, endUserId: "usr_jo" })).endUserId, "usr_jo");
    await idle();
    assert.equal(reasonOf(await rejection(start({ sessionId, endUserId: "usr_bo" }))), "RESOURCE_NOT_FOUND");
    assert.equal((await start({ sessionId, endUserId: "ignored" }, jo)).sessionId, sessionId);
    await idle();
  });

  test("takes a UUID for the caller's own session: one for each user, and none for an unknown id of another form", async () => {
    const sessionId = randomUUID();
    const [jo, bo] = ["usr_jo", "usr_bo"].map((userId) => principalOf(me.tenantId, TENANT_SCOPES, { userId }));
    const ids = new Set<string>();
    for (const principal of [jo, bo, me]) ids.add((await start({ sessionId }, principal)).sessionId);
    await idle();
    assert.equal(ids.size, 3);
    assert.ok(ids.has((await start({ sessionId: sessionId.toUpperCase() }, bo)).sessionId));
    await idle();
    for (const unknown of [newId("ses"), "my-session", `${sessionId}x`, "ses_", "'; DROP TABLE agent.runs; --"]) {
      assert.equal(reasonOf(await rejection(start({ sessionId: unknown }))), "RESOURCE_NOT_FOUND", unknown);
    }
    const owners = await mesh.one.sessions.getSession({ sessionId }, callAs(me));
    assert.equal(owners.session?.endUserId, "", "the tenant's own comes before its users'");
  });

  test("counts a message's characters against the tier's limit, whole ones", async () => {
    mesh.neighbours.maxMessageCharacters = 3n;
    await start({ message: "👩🏽" });
    await start({ message: "äöü" });
    const refused = mesh.one.runs.startRun({ message: "four" }, callAs(me));
    assert.deepEqual(await violations(refused), ["message"]);
    await idle();
  });

  test("asks the session's agent when none is named", async () => {
    mesh.neighbours.agentIds.add("agt_1");
    const { sessionId } = await start({ agentId: "agt_1" });
    await idle();
    assert.equal((await start({ sessionId })).agentId, "agt_1");
    await idle();
    assert.equal((await start({ sessionId, agentId: "agt_default" })).agentId, "agt_default");
    await idle();
  });

  describe("in a long session", () => {
    async function longSession(sizes: readonly number[]): Promise<string> {
      const sessionId = newId("ses");
      await mesh.db.tenant(me.tenantId, async (tx) => {
        const session = { sessionId, externalId: null, endUserId: "", agentId: "", title: "", labels: {} };
        await insertSession(tx, session);
        const messages = sizes.map((size, i) => {
          const content = [{ type: "text", text: `${i} ${"x".repeat(size)}` }];
          return JSON.stringify({ role: i % 2 === 0 ? "user" : "assistant", content });
        });
        await tx.execute(
          `INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
           SELECT agentmesh.current_tenant(), $1, n, 'msg_' || n, $2, body, $4
           FROM unnest($3::jsonb[]) WITH ORDINALITY AS m (body, n)`,
          [sessionId, newId("run"), messages, Buffer.byteLength(messages[0] ?? "")],
        );
        await tx.execute("UPDATE agent.sessions SET message_count = $2 WHERE session_id = $1", [
          sessionId,
          messages.length,
        ]);
      });
      return sessionId;
    }
    const history = (sessionId: string, limits?: { messages: number; bytes: number }) =>
      mesh.db.tenant(me.tenantId, async (tx) => {
        const session = await sessionById(tx, sessionId);
        assert.ok(session !== undefined);
        return historyOf(await readContext(tx, session.session_id, limits), session.message_count);
      });

    test("the model is shown the newest messages, beginning with a user's, and the run says how many it is not", async () => {
      const sessionId = await longSession(Array(HISTORY_LIMITS.messages + 100).fill(10));
      mesh.model.script(says("Yes."));
      const { runId } = await start({ sessionId, message: "and now?" });
      await idle();
      const sent = mesh.model.requests[0]?.body.messages ?? [];
      assert.equal(sent.length, HISTORY_LIMITS.messages + 1);
      assert.equal(sent[0]?.role, "user");
      const { events } = await mesh.one.runs.listRunEvents({ runId }, callAs(me));
      const told = events.find(({ type }) => type === "notice")?.payload;
      assert.ok(told?.case === "notice");
      assert.deepEqual([told.value.reason, told.value.facts], ["HISTORY_TRIMMED", { messages: "100" }]);
      const { messages } = await mesh.one.sessions.listMessages({ sessionId, pageSize: 1 }, callAs(me));
      assert.equal(messages.length, 1, "what is not shown to the model stays readable");
    });

    test("neither the number of messages nor their size exceeds the limits", async () => {
      const sessionId = await longSession(Array(9).fill(1_000));
      const lengths = async (messages: number, bytes: number) => {
        const { messages: kept, omitted } = await history(sessionId, { messages, bytes });
        assert.equal(kept.length + omitted, 9);
        assert.ok(kept.length === 0 || kept[0]?.role === "user");
        return kept.length;
      };
      assert.equal(await lengths(100, 1_000_000), 9);
      assert.equal(await lengths(9, 1_000_000), 9);
      assert.equal(await lengths(8, 1_000_000), 7);
      assert.equal(await lengths(100, 5_500), 5);
      assert.equal(await lengths(100, 4_500), 3);
      assert.equal(await lengths(100, 500), 0);
    });
  });
});
