import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { MODULES } from "#mesh/modules.ts";
import { assertTenantTablesProtected } from "#platform/postgres/tenant-tables.ts";
import { skipWithoutPostgres, testDatabase } from "#platform/testing/private-postgres.ts";

test("every tenant table of every service is under forced row-level security", {
  skip: skipWithoutPostgres(),
}, async () => {
  const services = Object.values(MODULES).flatMap(({ module: { schema } }) =>
    schema === undefined ? [] : [{ schema: schema.name, dir: fileURLToPath(schema.migrations) }],
  );
  await using database = await testDatabase({ services });
  // The index of credentials is asked before the tenant is known.
  const tables = await assertTenantTablesProtected(database.db, {
    globalUnique: ["auth.credentials_by_key"],
    atLeast: 15,
  });
  for (const { schema } of services) {
    for (const table of ["outbox", "audit"]) assert.ok(tables.includes(`${schema}.${table}`), `${schema}.${table}`);
  }
});

test("every service of the repository is a row of the module table", () => {
  const folders = readdirSync(join(import.meta.dirname, "../services"));
  assert.deepEqual(
    folders.filter((name) => !Object.hasOwn(MODULES, name)),
    [],
  );
});
