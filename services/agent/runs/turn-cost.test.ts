import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import pg from "pg";
import { newId } from "#platform/id.ts";
import type { Database, Tx } from "#platform/postgres/database.ts";
import { TENANT_SCOPES } from "#platform/rpc/scopes.ts";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { callAs, principalOf } from "#platform/testing/service-under-test.ts";
import { type AgentMesh, agentDatabase, openAgentMesh } from "../testing/agent-mesh.ts";

const me = principalOf(newId("ten"), TENANT_SCOPES);

/** So that nothing but turns asks the database, however slow the machine is. */
const QUIET = { answers_ttl: "10s", lease: "60s", heartbeat: "20s", reaper_interval: "20s" };

/** Transactions in order, with the number of statements in each. */
function counting(database: Database, transactions: number[]): Database {
  return {
    ...database,
    tenant: (tenantId, fn, options) =>
      database.tenant(
        tenantId,
        (tx) => {
          const at = transactions.push(0) - 1;
          const count = <A extends unknown[], R>(run: (...args: A) => R) => {
            return (...args: A) => {
              transactions[at] = (transactions[at] ?? 0) + 1;
              return run(...args);
            };
          };
          const counted = { query: count(tx.query), one: count(tx.one), execute: count(tx.execute) };
          return fn({ ...tx, ...counted, finish: count(tx.finish) } as Tx);
        },
        options,
      ),
  };
}

describe("what a turn costs the database", { skip: skipWithoutPostgres() }, () => {
  const transactions: number[] = [];
  let stored: TestDatabase;
  let mesh: AgentMesh;
  before(async () => {
    stored = await agentDatabase();
    mesh = await openAgentMesh({ database: counting(stored.open(), transactions), agent: QUIET });
  });
  after(async () => {
    await mesh[Symbol.asyncDispose]();
    await stored.drop();
  });
  beforeEach(() => {
    transactions.length = 0;
  });

  async function turn(sessionId = "", { one } = mesh): Promise<string> {
    let session = "";
    for await (const { event } of one.chat.chatStream(
      { message: "hi", sessionId, agentId: "agt_default" },
      callAs(me),
    )) {
      if (event?.payload.case === "final") session = event.payload.value.sessionId;
    }
    assert.notEqual(session, "", "the turn ended well");
    return session;
  }

  test("a simple turn: one statement with its commit at the start, and one at the end", async () => {
    mesh.model.script(says("Yes."));
    await turn();
    assert.deepEqual(transactions, [1, 1]);
  });

  test("one in a session that exists: the session and its history are read first", async () => {
    mesh.model.script(says("Yes."), says("No."));
    const sessionId = await turn();
    transactions.length = 0;
    await turn(sessionId);
    assert.deepEqual(transactions, [3, 1]);
  });

  test("one with a tool: its intent, and its result, are written on the way", async () => {
    mesh.model.script(turnOf(toolUse("echo", {})), says("Done."));
    await turn();
    assert.deepEqual(transactions, [1, 1, 1, 1]);
  });

  test("every row is found by its primary key, also before the tables have been analysed", async () => {
    await using fresh = await agentDatabase();
    const database = fresh.open();
    {
      await using other = await openAgentMesh({ database, agent: QUIET });
      other.model.script(says("Yes."), turnOf(toolUse("echo", {})), says("Done."));
      const sessionId = await turn("", other);
      await turn(sessionId, other);
    }
    // A connection tells what it has done when it ends.
    await database.close();
    const admin = new pg.Client({ connectionString: fresh.superuserUrl });
    await admin.connect();
    const { rows } = await admin.query(
      `SELECT indexrelname AS name, idx_scan::int AS scans FROM pg_stat_user_indexes
       WHERE schemaname = 'agent' AND relname IN ('sessions', 'runs')`,
    );
    await admin.end();
    const scans = new Map(rows.map(({ name, scans }) => [name, scans]));
    for (const key of ["sessions_pkey", "runs_pkey"]) assert.ok(scans.get(key) > 0, key);
    for (const list of ["sessions_newest", "sessions_of_user", "runs_newest", "runs_of_session", "runs_active"])
      assert.equal(scans.get(list), 0, list);
  });
});
