import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import { assertTenantTablesProtected } from "#platform/postgres/tenant-tables.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { configDatabase } from "./testing/config-service.ts";

describe("config's tables", { skip: skipWithoutPostgres() }, () => {
  test("all of them are protected", async () => {
    await using database = await configDatabase();
    const tables = await assertTenantTablesProtected(database.db);
    const names = "agent_versions agents audit idempotency_keys model_credentials outbox tenants user_profiles".split(
      " ",
    );
    assert.deepEqual(
      tables.filter((table) => table.startsWith("config.")),
      names.map((name) => `config.${name}`),
    );
  });

  test("the worker reads the register of tenants, writes none of it, and sees no agent, profile or credential", async () => {
    await using database = await configDatabase();
    const may = (sql: string) =>
      database.db
        .worker((tx) => tx.query(sql))
        .then(
          () => true,
          () => false,
        );
    assert.deepEqual(
      {
        list: await may("SELECT tenant_id FROM config.tenants"),
        change: await may("UPDATE config.tenants SET epoch = epoch + 1"),
        agents: await may("SELECT FROM config.agents"),
        versions: await may("SELECT FROM config.agent_versions"),
        profiles: await may("SELECT FROM config.user_profiles"),
        credentials: await may("SELECT FROM config.model_credentials"),
      },
      { list: true, change: false, agents: false, versions: false, profiles: false, credentials: false },
    );
  });

  test("the database itself keeps one default per tenant, one name per tenant, and versions as they were", async () => {
    await using database = await configDatabase();
    const tenantId = newId("ten");
    await database.db.tenant(tenantId, async (tx) => {
      await tx.execute(
        "INSERT INTO config.tenants (tenant_id, status, epoch, settings) VALUES ($1, 'active', 1, '{}')",
        [tenantId],
      );
      const add = (name: string, isDefault: boolean) =>
        tx.savepoint(() =>
          tx.execute(
            `INSERT INTO config.agents (tenant_id, agent_id, name, is_default, version, settings) VALUES ($1, $2, $3, $4, 1, '{}')`,
            [tenantId, newId("agt"), name, isDefault],
          ),
        );
      await add("a", true);
      await add("b", false);
      await assert.rejects(add("c", true), { constraint: "agents_default" });
      await assert.rejects(add("a", false), { constraint: "agents_name" });
      for (const sql of ["UPDATE config.agent_versions SET name = 'x'", "DELETE FROM config.agent_versions"]) {
        await assert.rejects(
          tx.savepoint(() => tx.execute(sql)),
          { code: "42501" },
        );
      }
    });
  });
});
