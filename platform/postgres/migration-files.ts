import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** The migrations of one schema: a folder of files `0001_name.sql`, applied in the order of their numbers. */
export interface MigrationSource {
  schema: string;
  dir: string;
}

export interface MigrationFile {
  schema: string;
  /** The file's name. */
  name: string;
  sql: string;
  /** SHA-256 of the text in hex, with line ends as \n. */
  checksum: string;
}

const namePattern = /^(\d{4})_[a-z0-9_]+\.sql$/;
const schemaPattern = /^[a-z][a-z0-9_]*$/;

/** Reads the migrations of a source in their order. Throws when a name has another form or two have the same number. */
export async function readMigrations({ schema, dir }: MigrationSource): Promise<MigrationFile[]> {
  if (!schemaPattern.test(schema)) throw new Error(`not a schema name: ${schema}`);
  const names = (await readdir(dir)).filter((name) => name.endsWith(".sql")).sort();
  const numbers = new Map<string, string>();
  for (const name of names) {
    const number = namePattern.exec(name)?.[1];
    if (number === undefined) throw new Error(`${join(dir, name)}: migrations are named like 0001_name.sql`);
    const twin = numbers.get(number);
    if (twin !== undefined) throw new Error(`${dir}: ${twin} and ${name} have the same number; renumber the newer one`);
    numbers.set(number, name);
  }
  return Promise.all(
    names.map(async (name) => {
      const sql = (await readFile(join(dir, name), "utf8")).replaceAll("\r\n", "\n");
      return { schema, name, sql, checksum: createHash("sha256").update(sql).digest("hex") };
    }),
  );
}
