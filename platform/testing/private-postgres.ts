import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import pg from "pg";
import { type Connection, withDatabase } from "#platform/postgres/connection.ts";
import { type Database, type DatabaseOptions, openDatabase } from "#platform/postgres/database.ts";
import { migrate } from "#platform/postgres/migrate.ts";
import { type MigrationSource, readMigrations } from "#platform/postgres/migration-files.ts";
import { MissingServer } from "./missing-server.ts";
import { type PostgresServer, postgresBinaries, startPostgres } from "./postgres-server.ts";

/** A database of its own for one test file or test, migrated. Call {@link TestDatabase.drop} (or use `await using`). */
export interface TestDatabase extends AsyncDisposable {
  /** Logs in as a role that is no superuser and owns nothing, as a service does in production. */
  readonly connection: Connection;
  readonly url: string;
  /** Logs in as the owner of the database: no superuser either, may create roles. */
  readonly ownerUrl: string;
  /** For what a test does behind the mesh's back. */
  readonly superuserUrl: string;
  readonly db: Database;
  /** Another pool on the same database; closed by drop too. */
  open(options?: Partial<DatabaseOptions>): Database;
  drop(): Promise<void>;
}

let server: Promise<PostgresServer> | undefined;

/**
 * The server of this process: the one that the test runner started (AGENTMESH_TEST_POSTGRES, the URL of a superuser), or
 * one started at the first call, which ends with the process. Never one that happens to run. Throws MissingServer.
 */
export function privatePostgres(): Promise<PostgresServer> {
  const given = process.env["AGENTMESH_TEST_POSTGRES"];
  server ??= given ? Promise.resolve({ url: given }) : startPostgres();
  return server;
}

/** For the `skip` option of a describe or test: the reason to skip, or false. */
export function skipWithoutPostgres(): string | false {
  if (process.env["AGENTMESH_TEST_POSTGRES"]) return false;
  try {
    postgresBinaries();
    return false;
  } catch (error) {
    if (error instanceof MissingServer) return error.message;
    throw error;
  }
}

export interface TestDatabaseOptions {
  services?: readonly MigrationSource[];
  /** In place of {@link privatePostgres}: for tests that change what all databases of a server share. */
  server?: PostgresServer;
}

/** A fresh database with the platform's and these services' migrations. */
export async function testDatabase(options: TestDatabaseOptions = {}): Promise<TestDatabase> {
  const { url } = options.server ?? (await privatePostgres());
  return createDatabase(url, (client) => ensureTemplate(client, url, options.services ?? []));
}

/** A fresh database with nothing in it, and the two login roles of {@link TestDatabase}; for tests of migrations. */
export async function emptyDatabase(): Promise<TestDatabase> {
  const { url } = await privatePostgres();
  return createDatabase(url, async (client) => {
    await createRoles(client, url);
    return "template1";
  });
}

async function createDatabase(url: string, template: (client: pg.Client) => Promise<string>): Promise<TestDatabase> {
  const name = `test_${process.pid}_${randomBytes(6).toString("hex")}`;
  await asSuperuser(url, async (client) =>
    client.query(`CREATE DATABASE ${name} TEMPLATE ${await template(client)} OWNER ${ownerRole}`),
  );
  const connection = { url: roleUrl(url, appRole, name) };
  const opened: Database[] = [];
  const open = (options: Partial<DatabaseOptions> = {}) => {
    const db = openDatabase({ connection, applicationName: "test", ...options });
    opened.push(db);
    return db;
  };
  const drop = async () => {
    await Promise.all(opened.map((db) => db.close()));
    await asSuperuser(url, (client) => client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  };
  return {
    connection,
    url: connection.url,
    ownerUrl: roleUrl(url, ownerRole, name),
    superuserUrl: withDatabase({ url }, name).url,
    db: open(),
    open,
    drop,
    [Symbol.asyncDispose]: drop,
  };
}

const ownerRole = "agentmesh_test_owner";
const appRole = "agentmesh_test";

/** Builds the migrated template once per server and set of migrations; processes agree through a lock. */
async function ensureTemplate(client: pg.Client, url: string, services: readonly MigrationSource[]): Promise<string> {
  const platform = { schema: "agentmesh", dir: join(import.meta.dirname, "../postgres/migrations") };
  const files = (await Promise.all([platform, ...services].map(readMigrations))).flat();
  const hash = createHash("sha256").update(
    JSON.stringify([services.map(({ schema }) => schema), files.map(({ name, checksum }) => [name, checksum])]),
  );
  const template = `template_${hash.digest("hex").slice(0, 24)}`;
  const exists = async () =>
    (await client.query("SELECT FROM pg_database WHERE datname = $1", [template])).rows.length > 0;
  if (await exists()) return template;
  await client.query("SELECT pg_advisory_lock(hashtextextended('agentmesh test templates', 0))");
  try {
    if (await exists()) return template;
    await createRoles(client, url);
    await client.query(`DROP DATABASE IF EXISTS ${template}_new`);
    await client.query(`CREATE DATABASE ${template}_new OWNER ${ownerRole}`);
    const owner = { url: roleUrl(url, ownerRole, `${template}_new`) };
    await migrate({ owner, services, app: { url: roleUrl(url, appRole, `${template}_new`) } });
    await client.query(`ALTER DATABASE ${template}_new RENAME TO ${template}`);
  } finally {
    await client.query("SELECT pg_advisory_unlock(hashtextextended('agentmesh test templates', 0))");
  }
  return template;
}

async function createRoles(client: pg.Client, url: string): Promise<void> {
  await client.query(`
    DO $$ BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '${ownerRole}') THEN
        CREATE ROLE ${ownerRole} LOGIN CREATEROLE PASSWORD '${rolePassword(url, ownerRole)}';
      END IF;
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '${appRole}') THEN
        CREATE ROLE ${appRole} LOGIN NOINHERIT PASSWORD '${rolePassword(url, appRole)}';
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another test process was faster
    END $$`);
}

/** Every process that knows the superuser's URL knows the roles' passwords. */
function rolePassword(url: string, role: string): string {
  return createHash("sha256")
    .update(`${role} ${new URL(url).password}`)
    .digest("hex");
}

function roleUrl(superuserUrl: string, role: string, database: string): string {
  const url = new URL(superuserUrl);
  url.username = role;
  url.password = rolePassword(superuserUrl, role);
  url.pathname = `/${database}`;
  return url.href;
}

async function asSuperuser<T>(url: string, fn: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: withDatabase({ url }, "postgres").url });
  await client.connect();
  try {
    return await fn(client);
  } finally {
    await client.end();
  }
}
