import assert from "node:assert/strict";
import { cp, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import pg from "pg";
import { newId } from "#platform/id.ts";
import type { AppError } from "#platform/rpc/errors.ts";
import { emptyDatabase, skipWithoutPostgres, type TestDatabase } from "#platform/testing/private-postgres.ts";
import { type MigrateOptions, migrate, migrationStatus } from "./migrate.ts";
import { readMigrations } from "./migration-files.ts";
import { assertMigrated, MigrationError } from "./migration-state.ts";

const platform = (await readMigrations({ schema: "agentmesh", dir: join(import.meta.dirname, "migrations") })).map(
  ({ name }) => `agentmesh/${name}`,
);
const all = (services: string[], state: string) =>
  Object.fromEntries([...platform, ...services].map((name) => [name, state]));

describe("migrate", { skip: skipWithoutPostgres() }, () => {
  let t: TestDatabase;
  let dir: string;
  let options: MigrateOptions;

  beforeEach(async () => {
    t = await emptyDatabase();
    dir = await mkdtemp(join(tmpdir(), "migrations-"));
    await cp(join(import.meta.dirname, "fixtures/notes"), dir, { recursive: true });
    options = { owner: { url: t.ownerUrl }, app: t.connection, services: [{ schema: "notes", dir }] };
  });
  afterEach(async () => {
    await t.drop();
    await rm(dir, { recursive: true });
  });

  const write = (name: string, sql: string) => writeFile(join(dir, name), sql);
  const names = (list: { schema: string; name: string }[]) => list.map(({ schema, name }) => `${schema}/${name}`);
  async function states(): Promise<Record<string, string>> {
    return Object.fromEntries(
      (await migrationStatus(options)).map(({ schema, name, state }) => [`${schema}/${name}`, state]),
    );
  }
  async function query(sql: string): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: t.superuserUrl });
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  }

  test("applies the platform's and the services' files in order, once, and reports what it did", async () => {
    await write("0002_more.sql", "ALTER TABLE note ADD COLUMN more int; CREATE INDEX ON note (tenant_id, more);");
    assert.deepEqual(await states(), all(["notes/0001_notes.sql", "notes/0002_more.sql"], "pending"));
    assert.deepEqual(
      await query("SELECT nspname FROM pg_namespace WHERE nspname = 'agentmesh'"),
      [],
      "status changes nothing",
    );
    const seen: string[] = [];
    const applied = await migrate({ ...options, onApplied: (m) => seen.push(`${m.schema}/${m.name}`) });
    assert.deepEqual(names(applied), [...platform, "notes/0001_notes.sql", "notes/0002_more.sql"]);
    assert.deepEqual(seen, names(applied));
    assert.deepEqual(await migrate(options), []);
    assert.deepEqual(await states(), all(["notes/0001_notes.sql", "notes/0002_more.sql"], "applied"));
    const tenant = newId("ten");
    await t.db.tenant(tenant, (tx) =>
      tx.execute("INSERT INTO notes.note (tenant_id, id, more) VALUES ($1, 'n', 1)", [tenant]),
    );
  });

  test("a process that does not migrate can tell whether somebody has", async () => {
    const check = () => assertMigrated(t.db, options.services);
    await assert.rejects(check(), { name: "MigrationError", message: /not prepared.*npm run migrate/ });
    await migrate({ ...options, services: [] });
    await assert.rejects(check(), {
      name: "MigrationError",
      message: /lacks notes\/0001_notes\.sql: run `npm run migrate`/,
    });
    await migrate(options);
    await check();
    await write("0001_notes.sql", "-- other");
    await assert.rejects(check(), /was changed after/);
  });

  test("gives every service an outbox and an audit table, also one without migrations of its own", async () => {
    await rm(join(dir, "0001_notes.sql"));
    await migrate(options);
    await migrate(options);
    const tables = await query("SELECT tablename FROM pg_tables WHERE schemaname = 'notes' ORDER BY 1");
    assert.deepEqual(tables, [{ tablename: "audit" }, { tablename: "outbox" }]);
  });

  test("replicas that start together agree: each file is applied by one of them", async () => {
    await write("0002_slow.sql", "SELECT pg_sleep(0.2); CREATE TABLE once (n int);");
    const done = await Promise.all(Array.from({ length: 5 }, () => migrate(options)));
    assert.deepEqual(names(done.flat()).sort(), [...platform, "notes/0001_notes.sql", "notes/0002_slow.sql"]);
  });

  test("databases of one server that are migrated at the same time do not get in each other's way", async () => {
    const others = await Promise.all([emptyDatabase(), emptyDatabase(), emptyDatabase()]);
    await Promise.all(
      others.map((other) => migrate({ ...options, owner: { url: other.ownerUrl }, app: other.connection })),
    );
    await Promise.all(others.map((other) => other.drop()));
  });

  test("an applied file that was changed is an error that names it, and nothing is applied", async () => {
    await migrate(options);
    await write("0001_notes.sql", "-- other");
    await write("0002_more.sql", "CREATE TABLE more (n int)");
    await assert.rejects(migrate(options), {
      name: "MigrationError",
      message: /notes\/0001_notes\.sql was changed after/,
    });
    assert.equal((await states())["notes/0001_notes.sql"], "edited");
    assert.equal((await states())["notes/0002_more.sql"], "pending");
  });

  test("line ends do not count as a change", async () => {
    await write("0002_more.sql", "CREATE TABLE more\n(n int)\n");
    await migrate(options);
    await write("0002_more.sql", "CREATE TABLE more\r\n(n int)\r\n");
    assert.deepEqual(await migrate(options), []);
  });

  test("a file that comes before applied ones is an error", async () => {
    await rename(join(dir, "0001_notes.sql"), join(dir, "0005_notes.sql"));
    await migrate(options);
    await write("0003_late.sql", "CREATE TABLE late (n int)");
    await assert.rejects(migrate(options), /notes\/0003_late\.sql comes before/);
    assert.equal((await states())["notes/0003_late.sql"], "late");
  });

  test("what a newer release has applied is left alone, so that an old replica can restart", async () => {
    await write("0002_newer.sql", "CREATE TABLE newer (n int)");
    await migrate(options);
    await rm(join(dir, "0002_newer.sql"));
    assert.deepEqual(await migrate(options), []);
    assert.equal((await states())["notes/0002_newer.sql"], "unknown");
  });

  test("a file that fails is rolled back whole, named with its line, and can be corrected", async () => {
    await write("0002_bad.sql", "CREATE TABLE half (n int);\n\nSELECT nonsense;");
    await assert.rejects(migrate(options), (error) => {
      assert.ok(error instanceof MigrationError);
      assert.match(error.message, /notes\/0002_bad\.sql failed at line 3: .*42703/);
      return true;
    });
    assert.deepEqual(await query("SELECT to_regclass('notes.half') AS half"), [{ half: null }]);
    await write("0002_bad.sql", "CREATE TABLE half (n int);");
    assert.deepEqual(names(await migrate(options)), ["notes/0002_bad.sql"]);
  });

  test("file names of another form and numbers used twice are refused", async () => {
    for (const bad of ["2_x.sql", "0002-x.sql", "0002_X.sql", "0002_.sql"]) {
      await write(bad, "");
      await assert.rejects(readMigrations({ schema: "notes", dir }), /named like 0001_name\.sql/, bad);
      await rm(join(dir, bad));
    }
    await write("0001_other.sql", "");
    await assert.rejects(readMigrations({ schema: "notes", dir }), /same number/);
    await assert.rejects(readMigrations({ schema: 'x"; DROP', dir }), /not a schema name/);
  });

  test("a table without tenant_id in its primary key cannot be protected", async () => {
    await write(
      "0002_open.sql",
      "CREATE TABLE open (id text PRIMARY KEY, tenant_id text); SELECT agentmesh.protect('open');",
    );
    await assert.rejects(migrate(options), /42|P0001/);
  });

  test("worker access takes privileges only", async () => {
    for (const bad of ["all", "select; DROP TABLE note", "truncate", "select (a b)", "", "delete (owner)"]) {
      await write("0002_access.sql", `SELECT agentmesh.worker_access('comment', '${bad}')`);
      await assert.rejects(migrate(options), MigrationError, bad);
    }
    await write("0002_access.sql", "SELECT agentmesh.worker_access('comment', ' SELECT (tenant_id, id),delete ')");
    await migrate(options);
  });

  test("an unreachable server is UNAVAILABLE, and an abort ends a wait for the lock", async () => {
    const nowhere = { url: t.ownerUrl.replace(/:\d+\//, ":1/") };
    await assert.rejects(
      migrate({ ...options, owner: nowhere }),
      (error: AppError) => error.reason === "DEPENDENCY_DOWN",
    );
    await migrate(options);
    await write("0002_more.sql", "CREATE TABLE more (n int)");
    const holder = new pg.Client({ connectionString: t.superuserUrl });
    await holder.connect();
    await holder.query("SELECT pg_advisory_lock(hashtextextended('agentmesh.migrations', 0))");
    const controller = new AbortController();
    const waiting = migrate({ ...options, signal: controller.signal });
    setTimeout(() => controller.abort(new Error("left")), 100);
    await assert.rejects(waiting, /left/);
    await holder.end();
    assert.equal((await states())["notes/0002_more.sql"], "pending");
  });
});
