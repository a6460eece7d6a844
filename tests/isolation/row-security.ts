import pg from "pg";
import type { TestDatabase } from "#platform/testing/private-postgres.ts";

/** Runs `fn` while no table of the database has row-level security, as if every policy had been forgotten. */
export async function withRowSecurityOff<T>(database: TestDatabase, fn: () => Promise<T>): Promise<T> {
  const tables = await protectedTables(database);
  await asSuperuser(database, tables.map((table) => `ALTER TABLE ${table} DISABLE ROW LEVEL SECURITY`).join(";"));
  try {
    return await fn();
  } finally {
    await asSuperuser(database, tables.map((table) => `ALTER TABLE ${table} ENABLE ROW LEVEL SECURITY`).join(";"));
  }
}

/** Every table with row-level security, as `schema.table`. */
export async function protectedTables(database: TestDatabase): Promise<string[]> {
  const sql = `SELECT format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity
    ORDER BY 1`;
  const rows = await asSuperuser(database, sql);
  return rows.map(({ name }) => String(name));
}

/** One statement behind the mesh's back. */
export async function asSuperuser(
  { superuserUrl }: TestDatabase,
  sql: string,
  params?: readonly unknown[],
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: superuserUrl });
  await client.connect();
  try {
    const { rows } = await client.query(sql, params === undefined ? undefined : [...params]);
    return rows ?? [];
  } finally {
    await client.end();
  }
}
