import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import { assertTenantTablesProtected } from "#platform/postgres/tenant-tables.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { toolDatabase } from "./testing/tool-service.ts";

describe("the tool service's tables", { skip: skipWithoutPostgres() }, () => {
  test("all of them are protected", async () => {
    await using database = await toolDatabase();
    const tables = await assertTenantTablesProtected(database.db);
    const demo = ["demo_order_items", "demo_orders", "demo_transfers"];
    const platform = ["idempotency_keys", "outbox"];
    const names = [
      "audit",
      ...demo,
      "erased_sessions",
      ...platform,
      "session_todos",
      "tool_calls",
      "tool_journal",
      "tool_outputs",
    ];
    assert.deepEqual(
      tables.filter((table) => table.startsWith("tool.")),
      names.map((name) => `tool.${name}`),
    );
  });

  test("the log of calls is only ever added to, and the worker sees neither it nor what belongs to a session", async () => {
    await using database = await toolDatabase();
    for (const sql of [
      "UPDATE tool.tool_calls SET tool = 'x'",
      "DELETE FROM tool.tool_calls",
      "DELETE FROM tool.demo_orders",
    ]) {
      await assert.rejects(
        database.db.tenant(newId("ten"), (tx) => tx.execute(sql)),
        { code: "42501" },
      );
    }
    for (const sql of [
      "SELECT FROM tool.tool_calls",
      "SELECT FROM tool.session_todos",
      "SELECT content FROM tool.tool_outputs",
      "SELECT result FROM tool.tool_journal",
      "UPDATE tool.tool_journal SET state = 'UNKNOWN'",
      "SELECT FROM tool.demo_orders",
      "SELECT FROM tool.demo_transfers",
    ]) {
      await assert.rejects(
        database.db.worker((tx) => tx.query(sql)),
        { code: "42501" },
      );
    }
  });

  test("a tenant's transaction neither sees nor writes another tenant's entries", async () => {
    await using database = await toolDatabase();
    const [one, two] = [newId("ten"), newId("ten")];
    const insert =
      "INSERT INTO tool.session_todos (tenant_id, session_id, item_id, text) VALUES ($1, 'ses_x', 1, 'milk')";
    await database.db.tenant(one, async (tx) => {
      await tx.execute(insert, [one]);
      await assert.rejects(
        tx.savepoint(() => tx.execute(insert, [two])),
        { code: "42501" },
      );
    });
    const seen = (tenant: string) => database.db.tenant(tenant, (tx) => tx.query("SELECT FROM tool.session_todos"));
    assert.deepEqual([(await seen(one)).length, (await seen(two)).length], [1, 0]);
  });
});
