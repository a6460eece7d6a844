import { fileURLToPath } from "node:url";
import type { Database } from "./database.ts";
import { DatabaseError } from "./errors.ts";
import { type MigrationFile, type MigrationSource, readMigrations } from "./migration-files.ts";

/**
 * What a migration's record says against its file: `edited` = applied, and the file changed since; `unknown` =
 * applied by a newer release that has a file which this one lacks; `late` = not applied although a later one is.
 */
export type MigrationState = "applied" | "pending" | "edited" | "unknown" | "late";

export interface MigrationStatus {
  schema: string;
  name: string;
  state: MigrationState;
  appliedAt: Date | undefined;
}

/** Migrations that cannot be applied; the message says why and what to do. */
export class MigrationError extends Error {
  override readonly name = "MigrationError";
}

/** The schema of the platform's own migrations. */
export const platformSchema = "agentmesh";
const platformDir = fileURLToPath(new URL("./migrations", import.meta.url));

export const selectRecords =
  "SELECT schema, name, checksum, applied_at FROM agentmesh.migrations ORDER BY schema, name";

/** A row of agentmesh.migrations. */
export interface MigrationRecord {
  schema: string;
  name: string;
  checksum: string;
  applied_at: Date;
}

/** The platform's migrations, then the services'. */
export async function readAllMigrations(services: readonly MigrationSource[]): Promise<MigrationFile[]> {
  return (await Promise.all([{ schema: platformSchema, dir: platformDir }, ...services].map(readMigrations))).flat();
}

/** What each file and record is worth. */
export function compareMigrations(
  files: readonly MigrationFile[],
  records: readonly MigrationRecord[],
): MigrationStatus[] {
  const key = (m: { schema: string; name: string }) => `${m.schema}/${m.name}`;
  const byKey = new Map(records.map((record) => [key(record), record]));
  const last = new Map<string, string>();
  for (const { schema, name } of records) if (name > (last.get(schema) ?? "")) last.set(schema, name);
  const status = files.map((file): MigrationStatus => {
    const record = byKey.get(key(file));
    byKey.delete(key(file));
    const state = record
      ? record.checksum === file.checksum
        ? "applied"
        : "edited"
      : file.name < (last.get(file.schema) ?? "")
        ? "late"
        : "pending";
    return { schema: file.schema, name: file.name, state, appliedAt: record?.applied_at };
  });
  const schemas = new Set(files.map(({ schema }) => schema));
  const rest = [...byKey.values()].filter(({ schema }) => schemas.has(schema));
  return [
    ...status,
    ...rest.map(
      ({ schema, name, applied_at }): MigrationStatus => ({ schema, name, state: "unknown", appliedAt: applied_at }),
    ),
  ];
}

/** The keys of what is pending; throws when something is wrong with what was applied. */
export function pendingOf(status: readonly MigrationStatus[]): Set<string> {
  const faults = status.flatMap(({ schema, name, state }) => {
    if (state === "edited")
      return [`${schema}/${name} was changed after it had been applied: restore it and write a new migration`];
    if (state === "late")
      return [`${schema}/${name} comes before migrations that have been applied: give it a higher number`];
    return [];
  });
  if (faults.length > 0) throw new MigrationError(faults.join("\n"));
  return new Set(status.flatMap(({ schema, name, state }) => (state === "pending" ? [`${schema}/${name}`] : [])));
}

/**
 * Boot check of a process that does not migrate by itself: throws a MigrationError with what to do when a migration that
 * it needs is not applied.
 */
export async function assertMigrated(
  db: Database,
  services: readonly MigrationSource[],
  options: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const files = await readAllMigrations(services);
  const records = await db
    .worker((tx) => tx.query<MigrationRecord & Record<string, unknown>>(selectRecords), { readOnly: true, ...options })
    .catch((error: unknown) => {
      if (error instanceof DatabaseError && notPrepared.has(error.code)) return undefined;
      throw error;
    });
  if (records === undefined) {
    throw new MigrationError(
      "The database is not prepared, or its login was not given the roles agentmesh_app and agentmesh_worker: " +
        "run `npm run migrate` with DATABASE_OWNER_URL and DATABASE_URL.",
    );
  }
  const pending = pendingOf(compareMigrations(files, records));
  if (pending.size > 0) {
    throw new MigrationError(
      `The database lacks ${[...pending].join(", ")}: run \`npm run migrate\` with DATABASE_OWNER_URL.`,
    );
  }
}

/** No such role, not a member of it, no such table, no such schema. */
const notPrepared = new Set(["22023", "42501", "42P01", "3F000"]);
