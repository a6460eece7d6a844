import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { SessionErasedSchema } from "#gen/agentmesh/event/v1/bus_pb.ts";
import { newId } from "#platform/id.ts";
import type { Database } from "#platform/postgres/database.ts";
import { idempotent } from "#platform/postgres/idempotency.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { createLog } from "#platform/telemetry/log.ts";
import { findText } from "#platform/testing/find-text.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf, refusal } from "#platform/testing/service-under-test.ts";
import { ANONYMISED, ERASED } from "../store/erasure-store.ts";
import { type AgentMesh, openAgentMesh } from "../testing/agent-mesh.ts";
import { erased } from "../testing/erased.ts";
import { playRun } from "../testing/play-run.ts";
import { read } from "../testing/watching.ts";
import { Eraser } from "./eraser.ts";

const silent = createLog({ level: "silent", service: "test" });
const never = new AbortController().signal;

describe("a deleted session", { skip: skipWithoutPostgres() }, () => {
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    // Erased when a test says so.
    mesh = await openAgentMesh({ agent: { lease: "10s", heartbeat: "1s", erase_after: "365d", erase_interval: "1h" } });
  });
  after(() => mesh[Symbol.asyncDispose]());
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
  });

  const eraser = (
    database: Database = mesh.db,
    options: { rows?: number; onErased?: (tenantId: string) => void } = {},
  ) => new Eraser({ database, afterMs: 0, log: silent, onErased: () => {}, ...options });
  const remove = (sessionId: string) => mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
  /** A session with a turn that called a tool, under a UUID and with request ids. */
  async function talked(canary = "canary") {
    const sessionId = randomUUID();
    const requestId = randomUUID();
    mesh.model.script(turnOf(toolUse("echo", { canary })), says(`${canary} indeed`));
    const { runId } = await mesh.one.chat.chat({ message: canary, sessionId, requestId }, callAs(me));
    const { session } = await mesh.one.sessions.getSession({ sessionId }, callAs(me));
    return { sessionId, own: session?.sessionId ?? "", runId, requestId };
  }
  const count = async (sql: string, params: unknown[] = []) =>
    (await mesh.db.tenant(me.tenantId, (tx) => tx.query(sql, params))).length;
  const auditOf = (type: string) => count("SELECT FROM agent.audit WHERE type = $1", [type]);

  test("is gone at once for whoever asks, by each of its names, while it is still stored", async () => {
    const { sessionId, own, runId, requestId } = await talked();
    await remove(sessionId);
    assert.equal(await count("SELECT FROM agent.messages WHERE session_id = $1", [own]), 4);
    const { one } = mesh;
    for (const id of [sessionId, own]) {
      for (const ask of [
        () => one.sessions.getSession({ sessionId: id }, callAs(me)),
        () => one.sessions.listMessages({ sessionId: id }, callAs(me)),
        () => one.sessions.updateSession({ session: { sessionId: id, title: "x" } }, callAs(me)),
        () => remove(id),
      ]) {
        assert.equal((await refusal(ask())).reason, "RESOURCE_NOT_FOUND");
      }
      assert.deepEqual((await one.runs.listRuns({ sessionId: id }, callAs(me))).runs, []);
    }
    for (const ask of [
      () => one.runs.getRun({ runId }, callAs(me)),
      () => one.runs.cancelRun({ runId }, callAs(me)),
      () => one.runs.listRunEvents({ runId }, callAs(me)),
      async () => Promise.reject(await read(one, me, runId).ended),
      () => one.chat.chat({ message: "x", sessionId: own }, callAs(me)),
      () => one.chat.chat({ message: "canary", sessionId, requestId }, callAs(me)),
    ]) {
      assert.equal((await refusal(ask())).reason, "RESOURCE_NOT_FOUND");
    }
    assert.deepEqual((await one.sessions.listSessions({}, callAs(me))).sessions, []);
    assert.deepEqual((await one.runs.listRuns({}, callAs(me))).runs, []);
    mesh.model.script(says("New."));
    await one.chat.chat({ message: "new", sessionId }, callAs(me));
    assert.equal(mesh.model.requests.at(-1)?.body.messages.length, 1, "a new session under the same UUID");
  });

  test("is erased with all that hangs on it; others stay, and other services are told", async () => {
    const { sessionId, own } = await talked("the-canary");
    const other = await talked("another");
    await remove(sessionId);
    const told: string[] = [];
    await eraser(mesh.db, { onErased: (tenantId) => told.push(tenantId) }).round(never);
    assert.equal(told.filter((tenantId) => tenantId === me.tenantId).length, 1);
    const query = (sql: string, params: readonly unknown[]) =>
      mesh.db.tenant(me.tenantId, (tx) => tx.query(sql, params));
    assert.deepEqual(await findText(query, "the-canary", "agent"), []);
    assert.deepEqual(await findText(query, own, "agent"), ["agent.audit", "agent.model_calls", "agent.outbox"]);
    assert.ok((await findText(query, "another", "agent")).includes("agent.run_events"));
    assert.equal(await count("SELECT FROM agent.messages WHERE session_id = $1", [other.own]), 4);
    assert.equal(await count("SELECT FROM agent.idempotency_keys WHERE request_id = $1", [other.requestId]), 1);
    assert.equal(await auditOf("session.erased"), 1);
    const [row] = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query<{ subject: string; payload: Buffer }>("SELECT subject, payload FROM agent.outbox"),
    );
    assert.equal(row?.subject, `agentmesh.session.v1.${me.tenantId}.erased`);
    const event = fromBinary(SessionErasedSchema, row?.payload ?? Buffer.alloc(0));
    assert.deepEqual([event.tenantId, event.sessionId], [me.tenantId, own]);
  });

  test("is erased with the keys of its requests, what has joined a run too; answers that are other bytes stay", async () => {
    const { sessionId, own, runId, requestId } = await talked();
    const other = await talked();
    const answers: [requestId: string, response: Buffer][] = [
      ["steered", Buffer.from(`${runId} ${newId("msg")} 7`)],
      ["of-session", Buffer.from(own)],
      ["of-another", Buffer.from(`${other.runId} ${newId("msg")} 7`)],
      ["names-it-later", Buffer.from(`${other.runId} ${runId}`)],
      ["begins-like-it", Buffer.from(`${runId}0 x`)],
      ["no-text", Buffer.from([0xff, 0x00, 0xfe, 0x20, 0xc3, 0x28])],
      ["escapes", Buffer.from("\\\\x41\\999 \\")],
      ["space-first", Buffer.from(` ${runId}`)],
      ["empty", Buffer.alloc(0)],
    ];
    await mesh.db.tenant(me.tenantId, async (tx) => {
      for (const [key, response] of answers) {
        const call = { principal: me, signal: never, requestId: "", ip: "", userAgent: "" };
        const request = { schema: "agent", call, method: "Test.Test", requestId: key, request: response };
        await idempotent(tx, request, async () => response);
      }
    });
    await remove(sessionId);
    await eraser().round(never);
    assert.equal(await auditOf("session.erased"), 1);
    const left = await mesh.db.tenant(me.tenantId, (tx) =>
      tx.query<{ request_id: string }>("SELECT request_id FROM agent.idempotency_keys"),
    );
    const kept = ["begins-like-it", "empty", "escapes", "names-it-later", "no-text", "of-another", "space-first"];
    assert.ok(!left.some(({ request_id: id }) => id === requestId));
    assert.deepEqual(left.map(({ request_id: id }) => id).toSorted(), [...kept, other.requestId].toSorted());
  });

  test("is erased by another process when the one that had begun is lost, and each session once by many", async () => {
    for (let i = 0; i < 3; i++) {
      const { own } = await talked();
      await remove(own);
    }
    let left = 4;
    const failing: Database = {
      ...mesh.db,
      async tenant(tenantId, fn, options) {
        if (--left < 0) throw new Error("lost");
        return mesh.db.tenant(tenantId, fn, options);
      },
    };
    await eraser(failing, { rows: 3 }).round(never);
    assert.equal(await auditOf("session.erased"), 0, "the first one is lost in the middle");
    assert.ok((await count("SELECT FROM agent.messages")) > 0);
    await Promise.all([1, 2, 3].map(() => eraser(mesh.db, { rows: 3 }).round(never)));
    assert.deepEqual([await count("SELECT FROM agent.sessions"), await count("SELECT FROM agent.run_events")], [0, 0]);
    assert.equal(await auditOf("session.erased"), 3);
    assert.equal(await count("SELECT FROM agent.outbox"), 3);
  });

  test("does not keep others waiting when it cannot be erased, and is erased when it can be", async () => {
    const { own } = await talked();
    const { own: second } = await talked();
    await remove(own);
    await remove(second);
    await mesh.db.tenant(me.tenantId, async (tx) => {
      await tx.query("SELECT FROM agent.sessions WHERE session_id = $1 FOR UPDATE", [own]);
      await eraser().round(never);
    });
    assert.deepEqual([await count("SELECT FROM agent.sessions"), await auditOf("session.erased")], [1, 1]);
    await eraser().round(never);
    assert.equal(await count("SELECT FROM agent.sessions"), 0);
  });

  test("stays for as long as is set", async () => {
    const { own } = await talked();
    await remove(own);
    const later = new Eraser({ database: mesh.db, afterMs: 60_000, log: silent, onErased: () => assert.fail() });
    await later.round(never);
    assert.equal(await count("SELECT FROM agent.sessions"), 1);
  });

  test("every table that names a session or a run is among those that are erased or anonymised", async () => {
    // Session and run themselves; audit rows hold ids, and outlive what they speak of.
    const known = new Set([...ERASED.map(({ table }) => table), ...ANONYMISED, "sessions", "runs", "audit"]);
    const named = await mesh.db.worker((tx) =>
      tx.query<{ name: string }>(
        `SELECT DISTINCT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'agent'::regnamespace AND c.relkind = 'r' AND a.attname ~ '(^|_)(session|run)_id$'`,
      ),
    );
    assert.ok(named.length >= 8, `${named.length}`);
    assert.deepEqual(
      named.map(({ name }) => name).filter((name) => !known.has(name)),
      [],
    );
  });
});

describe("the eraser of a running service", { skip: skipWithoutPostgres() }, () => {
  test("erases at once what was deleted in its process, and in its rounds what others left", async () => {
    await using mesh = await openAgentMesh({ agent: { erase_interval: "200ms" } });
    const me = principalOf(newId("ten"), TENANT_SCOPES);
    const { sessionId } = await playRun(mesh, me);
    await mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
    await erased(mesh.db, me.tenantId);
    const { sessionId: left } = await playRun(mesh, me);
    await mesh.db.tenant(me.tenantId, (tx) =>
      tx.execute("UPDATE agent.sessions SET deleted_at = clock_timestamp() WHERE session_id = $1", [left]),
    );
    await erased(mesh.db, me.tenantId);
    assert.match(await mesh.one.metrics.text(), /agent_sessions_erased_total\{tenant_id="[^"]+"\} 2/);
    assert.ok(mesh.one.logged.some(({ event, count }) => event === "agent.sessions_erased" && count === 1));
  });
});
