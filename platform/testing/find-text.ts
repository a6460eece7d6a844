/** Runs one statement and returns its rows. */
export type Query = (sql: string, params: readonly unknown[]) => Promise<Record<string, unknown>[]>;

/**
 * The tables, as `schema.table` and sorted, in which a text stands anywhere: in any column of any row that the query may
 * see, in bytes too. Looks at every table of every schema but the server's own, or at those of one schema.
 */
export async function findText(query: Query, text: string, schema?: string): Promise<string[]> {
  const tables = await query(
    `SELECT format('%I.%I', n.nspname, c.relname) AS name,
       coalesce(string_agg(format('coalesce(encode(t.%I, ''escape''), '''')', a.attname), ' || ')
         FILTER (WHERE a.attname IS NOT NULL), '''''') AS bytes
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.atttypid = 'bytea'::regtype AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema)' AND ($1::text IS NULL OR n.nspname = $1)
     GROUP BY 1 ORDER BY 1`,
    [schema ?? null],
  );
  if (tables.length === 0) throw new Error("there is no table to look into");
  const found: string[] = [];
  for (const { name, bytes } of tables) {
    const hits = await query(`SELECT FROM ${name} t WHERE position($1 IN t::text || ${bytes}) > 0 LIMIT 1`, [text]);
    if (hits.length > 0) found.push(String(name));
  }
  return found;
}
