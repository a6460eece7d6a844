import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import pg from "pg";
import { newId } from "#platform/id.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import type { Cache } from "#platform/redis/cache.ts";
import { cacheKey } from "#platform/redis/cache-key.ts";
import { EmbeddedCache } from "#platform/redis/embedded-cache.ts";
import type { Principal } from "#platform/rpc/principal.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { until } from "#platform/rpc/test-mesh.contract.ts";
import { says } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type ContextMessage, extended, historyOf, readContext } from "../store/session-context.ts";
import { type AgentMesh, agentDatabase, openAgentMesh } from "../testing/agent-mesh.ts";
import { playRun, sent } from "../testing/play-run.ts";
import { HOT_FROM_MESSAGES, HotContext } from "./hot-context.ts";

/** Counts the statements that read messages for a model. */
function counting(database: Database, reads: { count: number; ms: number[] }): Database {
  return {
    ...database,
    tenant: (tenantId, fn, options) =>
      database.tenant(
        tenantId,
        async (tx) => {
          const query: Tx["query"] = async (sql, params) => {
            if (sql.startsWith("WITH compaction AS (\n       SELECT kept")) reads.count++;
            return tx.query(sql, params);
          };
          const began = performance.now();
          const finish: Tx["finish"] = async (sql, params) => {
            const rows = await tx.finish(sql, params);
            if (sql.includes("INSERT INTO agent.runs")) reads.ms.push(performance.now() - began);
            return rows as never;
          };
          return fn({ ...tx, query, finish } as Tx);
        },
        options,
      ),
  };
}

describe("the context of a session that is in use", { skip: skipWithoutPostgres() }, () => {
  const reads = { count: 0, ms: [] as number[] };
  let stored: TestDatabase;
  let cache: EmbeddedCache;
  let mesh: AgentMesh;
  let me: Principal;
  before(async () => {
    stored = await agentDatabase();
    cache = new EmbeddedCache();
    mesh = await openAgentMesh({
      database: counting(stored.open(), reads),
      cache,
      agent: { lease: "10s", heartbeat: "1s", answers_ttl: "10s" },
    });
  });
  after(async () => {
    await mesh[Symbol.asyncDispose]();
    await stored.drop();
  });
  beforeEach(() => {
    me = principalOf(newId("ten"), TENANT_SCOPES);
    mesh.model.reset();
  });

  /** A session with so many messages, and one turn more. */
  async function longSession(count = HOT_FROM_MESSAGES): Promise<string> {
    mesh.model.script(says("Yes."));
    const { sessionId } = await playRun(mesh, me, { message: "first" });
    await mesh.db.tenant(me.tenantId, async (tx) => {
      await tx.execute(
        `INSERT INTO agent.messages (tenant_id, session_id, position, message_id, run_id, message, size)
         SELECT tenant_id, session_id, 2 + n, 'msg_' || n, run_id, m, octet_length(m::text)
         FROM agent.messages, generate_series(1, $2::int) n, LATERAL (SELECT jsonb_build_object('role',
           CASE WHEN n % 2 = 1 THEN 'user' ELSE 'assistant' END, 'content',
           jsonb_build_array(jsonb_build_object('type', 'text', 'text', repeat('word ', 80) || n)))) AS b (m)
         WHERE session_id = $1 AND position = 1`,
        [sessionId, count],
      );
      await tx.execute("UPDATE agent.sessions SET message_count = message_count + $2 WHERE session_id = $1", [
        sessionId,
        count,
      ]);
    });
    await turn(sessionId);
    reads.count = 0;
    return sessionId;
  }
  /** A turn, and what the model was shown in it. */
  async function turn(sessionId: string): Promise<string[]> {
    mesh.model.script(says("Yes."));
    await playRun(mesh, me, { sessionId, message: "and now?" });
    await until(() => mesh.one.service.liveRuns.size === 0, "the run to be over");
    return sent(mesh.model.requests.at(-1));
  }
  const keyOf = (sessionId: string) =>
    cacheKey({ tenantId: me.tenantId, namespace: "agent.context", parts: [sessionId] });
  const kept = async (sessionId: string) => JSON.parse((await cache.get(keyOf(sessionId))) ?? "null");

  test("is not read from Postgres again, and is shown to the model as it is stored", async () => {
    const sessionId = await longSession();
    const shown = await turn(sessionId);
    assert.equal(reads.count, 0);
    assert.equal(shown.length, HOT_FROM_MESSAGES + 5);
    const [context, session] = await mesh.db.tenant(me.tenantId, async (tx) => [
      await readContext(tx, sessionId),
      await tx.one<{ version: number; message_count: number }>("SELECT * FROM agent.sessions WHERE session_id = $1", [
        sessionId,
      ]),
    ]);
    const { state, context: hot } = await kept(sessionId);
    assert.deepEqual(hot, context);
    assert.deepEqual([state.version, state.message_count], [session?.version, session?.message_count]);
    reads.count = 0;
    await turn(sessionId);
    assert.equal(reads.count, 0, "it is extended by each turn");
  });

  test("is read when the kept one is stale, another's, damaged or gone; the model sees the same", async () => {
    const sessionId = await longSession();
    const good = await kept(sessionId);
    const { state, context } = good;
    const other = { ...context, rest: [{ id: "msg_x", size: 1, message: { role: "user", content: [] } }] };
    for (const [name, value] of Object.entries({
      version: { ...good, state: { ...state, version: state.version - 1 }, context: other },
      count: { ...good, state: { ...state, message_count: state.message_count + 1 }, context: other },
      compaction: { ...good, state: { ...state, compaction_id: "cmp_x" }, context: other },
      session: { ...good, sessionId: "ses_x", context: other },
      form: { ...good, context: { ...context, rest: "much" } },
      part: { ...good, context: { ...context, rest: [{ id: "msg_x" }] } },
      text: '{"sessionId"',
      nothing: null,
    })) {
      const current = await kept(sessionId);
      // What is wrong is wrong about the session as it is now.
      const now =
        typeof value === "object" && value !== null && name !== "version"
          ? { ...value, state: { ...value.state } }
          : value;
      if (now !== null && typeof now === "object" && !["version"].includes(name)) {
        now.state = { ...current.state, ...(name === "count" && { message_count: current.state.message_count + 1 }) };
        if (name === "compaction") now.state.compaction_id = "cmp_x";
      }
      await cache.set(keyOf(sessionId), typeof now === "string" ? now : JSON.stringify(now), 60_000);
      reads.count = 0;
      const shown = await turn(sessionId);
      assert.equal(reads.count, 1, name);
      assert.equal(shown.length, current.state.message_count + 1, name);
    }
  });

  test("is read after a change of the session", async () => {
    const sessionId = await longSession();
    await mesh.one.sessions.updateSession({ session: { sessionId, title: "new" } }, callAs(me));
    await turn(sessionId);
    assert.equal(reads.count, 1);
  });

  test("is forgotten with the session", async () => {
    const sessionId = await longSession();
    assert.ok((await kept(sessionId)) !== null);
    await mesh.one.sessions.deleteSession({ sessionId }, callAs(me));
    assert.equal(await kept(sessionId), null);
  });

  test("is not kept of a short session, nor when nothing is to be kept", async () => {
    mesh.model.script(says("Yes."));
    const { sessionId } = await playRun(mesh, me);
    assert.equal(await kept(sessionId), null);
    const none = new HotContext({ cache, ttlMs: 0, fromMessages: 0 });
    const state = { version: 1, message_count: 0, compaction_id: null };
    await none.keep(me.tenantId, sessionId, { state, context: { front: [], rest: [], first: 1 } }, []);
    assert.equal(await none.lookUp(me.tenantId, sessionId), undefined);
    assert.equal(await kept(sessionId), null);
  });

  test("what a slow cache has is not waited for", async () => {
    const slow = { get: () => new Promise<string | undefined>(() => {}) } as unknown as Cache;
    const began = performance.now();
    assert.equal(await new HotContext({ cache: slow, ttlMs: 1_000 }).lookUp(me.tenantId, newId("ses")), undefined);
    assert.ok(performance.now() - began < 2_000);
  });

  test("what it saves, in figures", async (t) => {
    const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
    for (const count of [HOT_FROM_MESSAGES, 200, 500]) {
      const sessionId = await longSession(count);
      await asSuperuser(stored.superuserUrl, "ANALYZE agent.messages");
      const begins = { hot: [] as number[], cold: [] as number[] };
      for (let i = 0; i < 9; i++) {
        for (const kind of ["hot", "cold"] as const) {
          if (kind === "cold") await cache.delete(keyOf(sessionId));
          reads.ms.length = 0;
          reads.count = 0;
          await turn(sessionId);
          assert.equal(reads.count, kind === "cold" ? 1 : 0);
          begins[kind].push(reads.ms[0] ?? 0);
        }
      }
      const [hot, cold] = [median(begins.hot).toFixed(2), median(begins.cold).toFixed(2)];
      t.diagnostic(`begin of a turn in a session of ${count} messages: ${hot} ms hot, ${cold} ms from Postgres`);
    }
  });
});

async function asSuperuser(connectionString: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.query(sql);
  await client.end();
}

describe("a context that is extended", () => {
  const message = (n: number, size: number, role: "user" | "assistant" = "user"): ContextMessage => ({
    id: `msg_${n}`,
    size,
    message: { role, content: [{ type: "text", text: String(n) }] } as ContextMessage["message"],
  });

  test("keeps the newest within number and bytes, and the front", () => {
    const front = [message(0, 1)];
    const rest = [1, 2, 3].map((n) => message(n, 10));
    const ids = (limits: { messages: number; bytes: number }) =>
      extended({ front, rest, first: 2 }, [message(4, 10)], limits).rest.map(({ id }) => id);
    assert.deepEqual(ids({ messages: 9, bytes: 99 }), ["msg_1", "msg_2", "msg_3", "msg_4"]);
    assert.deepEqual(ids({ messages: 2, bytes: 99 }), ["msg_3", "msg_4"]);
    assert.deepEqual(ids({ messages: 9, bytes: 30 }), ["msg_2", "msg_3", "msg_4"]);
    assert.deepEqual(ids({ messages: 9, bytes: 29 }), ["msg_3", "msg_4"]);
    assert.deepEqual(ids({ messages: 9, bytes: 9 }), []);
    const whole = historyOf({ front, rest, first: 2 }, 4);
    assert.deepEqual([whole.messages.length, whole.omitted], [4, 0]);
    assert.equal(historyOf({ front, rest: rest.slice(1), first: 2 }, 4).omitted, 1);
  });
});
