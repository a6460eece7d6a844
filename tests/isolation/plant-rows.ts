import assert from "node:assert/strict";
import type { TestDatabase } from "#platform/testing/private-postgres.ts";
import { asSuperuser } from "./row-security.ts";

/** A value for each type that a column without a default has. */
const VALUES: Readonly<Record<string, (column: string) => string>> = {
  text: (column) => `'${column}'`,
  integer: () => "1",
  bigint: () => "1",
  smallint: () => "1",
  boolean: () => "false",
  jsonb: () => "'{}'",
  // As long as a SHA-256, which is what most of them are.
  bytea: () => "decode(repeat('00', 32), 'hex')",
  ARRAY: () => "'{}'",
  "timestamp with time zone": () => "clock_timestamp()",
};

/** Gives a tenant a row in each of the tables in which it has none: not everything happens in a short life. */
export async function plantRows(database: TestDatabase, tenantId: string, tables: readonly string[]): Promise<void> {
  for (const table of tables) {
    const [schema = "", name = ""] = table.split(".");
    const columns = (await asSuperuser(
      database,
      `SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2
         AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' AND column_name <> 'tenant_id'`,
      [schema, name],
    )) as { column_name: string; data_type: string }[];
    const values = columns.map(({ column_name: column, data_type: type }) => {
      const value = VALUES[type];
      assert.ok(value, `${table}.${column}: say in VALUES what a ${type} can be`);
      return value(column);
    });
    const names = columns.map((column) => `, ${column.column_name}`).join("");
    // What the row hangs on does not matter here, so that references are not looked at.
    await asSuperuser(
      database,
      `SET session_replication_role = replica;
       INSERT INTO ${table} (tenant_id${names}) SELECT '${tenantId}'${values.map((value) => `, ${value}`).join("")}
       WHERE NOT EXISTS (SELECT FROM ${table} WHERE tenant_id = '${tenantId}')`,
    );
  }
}
