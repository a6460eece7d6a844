import { readFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { runCaller } from "../callers/runs.ts";
import type { Plan } from "../plan.ts";
import type { Service } from "../processes.ts";
import { ask } from "../target.ts";

/** Turns whose rows are weighed. */
export const WEIGHED = {
  short: "a turn of 20 deltas",
  long: "a turn of 200 deltas",
  tool: "a turn with a tool",
} as const;

export type Weighed = keyof typeof WEIGHED;

/** What one run adds to a table, the session of its own included. */
export interface StoredRows {
  readonly table: string;
  /** Rows that are left when the run has ended. */
  readonly rows: number;
  /** Their bytes, as pg_column_size has them. */
  readonly bytes: number;
  /** What the table, its indexes and TOAST have grown by, dead rows included. */
  readonly grown: number;
}

const MESSAGES: Record<Weighed, string> = {
  short: ask("deltas 20", "together"),
  long: ask("deltas 200", "together"),
  tool: ask("tool:current_time {}"),
};
const LANES = 8;

/** Bytes per run in PostgreSQL, by table: what so many runs, each in a session of its own, have added, divided by them. */
export async function stored(
  service: Service,
  { runs }: Plan["stored"],
): Promise<{ readonly turn: Weighed; readonly result: readonly StoredRows[] }[]> {
  await using caller = runCaller(service);
  const client = await superuser(service.dataDir);
  try {
    const found: { turn: Weighed; result: readonly StoredRows[] }[] = [];
    for (const turn of Object.keys(WEIGHED) as Weighed[]) {
      const before = await weigh(client);
      let left = runs;
      const lane = async () => {
        while (left-- > 0) await caller.count(await caller.start(MESSAGES[turn]), 0n);
      };
      await Promise.all(Array.from({ length: LANES }, lane));
      found.push({ turn, result: difference(before, await weigh(client), runs) });
    }
    return found;
  } finally {
    await client.end();
  }
}

type Weights = Map<string, { rows: number; bytes: number; grown: number }>;

async function weigh(client: pg.Client): Promise<Weights> {
  const { rows: tables } = await client.query(
    "SELECT relname AS name, oid::regclass::text AS full FROM pg_class WHERE relnamespace = 'agent'::regnamespace AND relkind = 'r'",
  );
  const weights: Weights = new Map();
  for (const { name, full } of tables) {
    const { rows } = await client.query(
      `SELECT count(*)::float8 AS rows, coalesce(sum(pg_column_size(t)), 0)::float8 AS bytes,
         pg_total_relation_size($1::regclass)::float8 AS grown FROM ${full} t`,
      [full],
    );
    weights.set(name, rows[0]);
  }
  return weights;
}

function difference(before: Weights, after: Weights, runs: number): StoredRows[] {
  return [...after]
    .map(([table, now]) => {
      const then = before.get(table) ?? { rows: 0, bytes: 0, grown: 0 };
      return {
        table,
        rows: (now.rows - then.rows) / runs,
        bytes: (now.bytes - then.bytes) / runs,
        grown: (now.grown - then.grown) / runs,
      };
    })
    .filter(({ rows, grown }) => rows !== 0 || grown !== 0)
    .toSorted((a, b) => b.grown - a.grown);
}

/** A connection to the service's own PostgreSQL that sees every tenant's rows. */
async function superuser(dataDir: string): Promise<pg.Client> {
  const home = join(dataDir, "postgres");
  const { superuser: password } = JSON.parse(await readFile(join(home, "credentials.json"), "utf8"));
  // Its fifth line is the directory of the socket.
  const host = (await readFile(join(home, "data", "postmaster.pid"), "utf8")).split("\n")[4] ?? "";
  const client = new pg.Client({ host, user: "postgres", password, database: "agentmesh" });
  await client.connect();
  return client;
}
