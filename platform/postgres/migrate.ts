import pg from "pg";
import { type Connection, clientConfig, userOf } from "./connection.ts";
import { databaseError } from "./errors.ts";
import type { MigrationFile, MigrationSource } from "./migration-files.ts";
import {
  compareMigrations,
  MigrationError,
  type MigrationRecord,
  type MigrationStatus,
  pendingOf,
  platformSchema,
  readAllMigrations,
  selectRecords,
} from "./migration-state.ts";

export interface MigrateOptions {
  /** The owner's connection: may create schemas, and roles unless these exist. Not through a pooler that changes sessions. */
  owner: Connection;
  /** The services' migrations; the platform's own come first by themselves. */
  services: readonly MigrationSource[];
  /** The connection that the services use, when it is another one: its user becomes a member of the two roles. */
  app?: Connection | undefined;
  /** Called for each migration that was applied. */
  onApplied?: ((migration: { schema: string; name: string; ms: number }) => void) | undefined;
  signal?: AbortSignal | undefined;
}

const lock = "SELECT pg_advisory_xact_lock(hashtextextended('agentmesh.migrations', 0))";

/**
 * Applies what is pending, each file in a transaction of its own, and records it with its checksum. Processes that
 * start together agree through an advisory lock. Schemas of a newer release are left alone (an old replica may restart
 * during an upgrade); an edited or late file is an error before anything is applied. Returns what it applied.
 */
export async function migrate(options: MigrateOptions): Promise<MigrationStatus[]> {
  const files = await readAllMigrations(options.services);
  return withOwner(options.owner, options.signal, async (client) => {
    await prepare(client);
    const pending = pendingOf(compareMigrations(files, await recorded(client)));
    const applied: MigrationStatus[] = [];
    const applyAll = async (some: readonly MigrationFile[]) => {
      for (const file of some) {
        if (!pending.has(`${file.schema}/${file.name}`)) continue;
        const startedAt = performance.now();
        const appliedAt = await apply(client, file);
        if (appliedAt === undefined) continue;
        applied.push({ schema: file.schema, name: file.name, state: "applied", appliedAt });
        options.onApplied?.({ schema: file.schema, name: file.name, ms: Math.round(performance.now() - startedAt) });
      }
    };
    await applyAll(files.filter(({ schema }) => schema === platformSchema));
    await createServiceTables(client, options.services);
    await applyAll(files.filter(({ schema }) => schema !== platformSchema));
    await grantRoles(client, userOf(options.app ?? options.owner));
    return applied;
  });
}

/** Compares the files with the database's records and changes nothing. */
export async function migrationStatus(
  options: Pick<MigrateOptions, "owner" | "services" | "signal">,
): Promise<MigrationStatus[]> {
  const files = await readAllMigrations(options.services);
  return withOwner(options.owner, options.signal, async (client) => compareMigrations(files, await recorded(client)));
}

async function withOwner<T>(
  owner: Connection,
  signal: AbortSignal | undefined,
  fn: (client: pg.Client) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const client = new pg.Client(clientConfig(owner, "agentmesh migrate", 10_000));
  client.on("error", () => {});
  const cut = () => void client.end();
  signal?.addEventListener("abort", cut, { once: true });
  try {
    await client.connect();
    return await fn(client);
  } catch (error) {
    throw signal?.aborted ? signal.reason : error instanceof MigrationError ? error : databaseError(error);
  } finally {
    signal?.removeEventListener("abort", cut);
    await client.end();
  }
}

async function transaction<T>(client: pg.Client, fn: () => Promise<T>): Promise<T> {
  await client.query("BEGIN");
  try {
    await client.query(lock);
    const result = await fn();
    await client.query("COMMIT");
    return result;
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  }
}

async function prepare(client: pg.Client): Promise<void> {
  const major = await serverMajor(client);
  if (major < 15) throw new MigrationError(`PostgreSQL ${major} is too old: agentmesh needs 15 or newer`);
  if ((await client.query("SELECT to_regclass('agentmesh.migrations') AS there")).rows[0].there !== null) return;
  await transaction(client, () =>
    client.query(`
      CREATE SCHEMA IF NOT EXISTS agentmesh;
      CREATE TABLE IF NOT EXISTS agentmesh.migrations (
        schema text, name text, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (schema, name))`),
  );
}

async function recorded(client: pg.Client): Promise<MigrationRecord[]> {
  const { rows } = await client.query("SELECT to_regclass('agentmesh.migrations') AS there");
  if (rows[0].there === null) return [];
  return (await client.query(selectRecords)).rows;
}

/** Applies a file unless another process has meanwhile; returns when, or undefined. */
async function apply(client: pg.Client, { schema, name, sql, checksum }: MigrationFile): Promise<Date | undefined> {
  return transaction(client, async () => {
    const known = await client.query("SELECT checksum FROM agentmesh.migrations WHERE schema = $1 AND name = $2", [
      schema,
      name,
    ]);
    if (known.rows[0] !== undefined) return undefined;
    await client.query(`SET LOCAL search_path TO ${schema}, public`);
    try {
      await client.query(sql);
    } catch (error) {
      throw new MigrationError(`${schema}/${name} failed${position(sql, error)}: ${databaseError(error).message}`);
    }
    const record = "INSERT INTO agentmesh.migrations (schema, name, checksum) VALUES ($1, $2, $3) RETURNING applied_at";
    return (await client.query(record, [schema, name, checksum])).rows[0].applied_at;
  });
}

async function createServiceTables(client: pg.Client, services: readonly MigrationSource[]): Promise<void> {
  await transaction(client, async () => {
    for (const { schema } of services) await client.query("SELECT agentmesh.create_service_tables($1)", [schema]);
  });
}

/** Makes the login a member of the two roles unless it is one; where PostgreSQL can (16), without inheriting their rights. */
async function grantRoles(client: pg.Client, login: string | undefined): Promise<void> {
  const isMember = async () => {
    const sql =
      "SELECT pg_has_role(r, 'agentmesh_app', 'MEMBER') AND pg_has_role(r, 'agentmesh_worker', 'MEMBER') AS member FROM coalesce($1, current_user) r";
    return (await client.query(sql, [login])).rows[0].member === true;
  };
  if (await isMember()) return;
  const inherit = (await serverMajor(client)) >= 16 ? " WITH INHERIT FALSE, SET TRUE" : "";
  const to = login === undefined ? "CURRENT_USER" : pg.escapeIdentifier(login);
  try {
    await client.query(`GRANT agentmesh_app, agentmesh_worker TO ${to}${inherit}`);
  } catch (error) {
    // Roles belong to the whole server: another database's migration may have done the same at this moment.
    if (!(await isMember())) throw error;
  }
}

async function serverMajor(client: pg.Client): Promise<number> {
  return Math.floor(Number((await client.query("SHOW server_version_num")).rows[0].server_version_num) / 10_000);
}

function position(sql: string, error: unknown): string {
  const at = Number((error as { position?: string }).position);
  return Number.isInteger(at) ? ` at line ${sql.slice(0, at).split("\n").length}` : "";
}
