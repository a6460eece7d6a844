import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { newId } from "#platform/id.ts";
import { assertTenantTablesProtected } from "#platform/postgres/tenant-tables.ts";
import { skipWithoutPostgres } from "#platform/testing/private-postgres.ts";
import { authDatabase } from "./testing/auth-service.ts";

describe("auth's tables", { skip: skipWithoutPostgres() }, () => {
  test("all of them are protected, with the credential index as the only one that is unique across tenants", async () => {
    await using database = await authDatabase();
    const tables = await assertTenantTablesProtected(database.db, { globalUnique: ["auth.credentials_by_key"] });
    const names = ["api_keys", "audit", "credentials", "idempotency_keys", "outbox", "tenants"];
    assert.deepEqual(
      tables.filter((table) => table.startsWith("auth.")),
      names.map((name) => `auth.${name}`),
    );
    await assert.rejects(assertTenantTablesProtected(database.db), /credentials_by_key/);
  });

  test("the worker sees the credential index and may write nothing of it but the last use", async () => {
    await using database = await authDatabase();
    const may = (sql: string) =>
      database.db
        .worker((tx) => tx.query(sql))
        .then(
          () => true,
          () => false,
        );
    assert.deepEqual(
      {
        find: await may("SELECT tenant_id, digest FROM auth.credentials"),
        use: await may("UPDATE auth.credentials SET last_used_at = clock_timestamp()"),
        forge: await may("UPDATE auth.credentials SET digest = digest"),
        remove: await may("DELETE FROM auth.credentials"),
        keys: await may("SELECT FROM auth.api_keys"),
        tenants: await may("SELECT FROM auth.tenants"),
        answers: await may("SELECT response FROM auth.idempotency_keys"),
      },
      { find: true, use: true, forge: false, remove: false, keys: false, tenants: false, answers: false },
    );
  });

  test("a tenant's transaction sees no key and no credential of another tenant", async () => {
    await using database = await authDatabase();
    const [one, two] = [newId("ten"), newId("ten")];
    const insert = `INSERT INTO auth.api_keys (tenant_id, api_key_id, name, scopes, user_id, origin)
      VALUES ($1, $2, 'x', '{}', '', 'call')`;
    await database.db.tenant(one, async (tx) => {
      await tx.execute(insert, [one, newId("key")]);
      await assert.rejects(
        tx.savepoint(() => tx.execute(insert, [two, newId("key")])),
        { code: "42501" },
      );
    });
    assert.equal((await database.db.tenant(two, (tx) => tx.query("SELECT FROM auth.api_keys"))).length, 0);
    assert.equal((await database.db.tenant(one, (tx) => tx.query("SELECT FROM auth.api_keys"))).length, 1);
  });
});
