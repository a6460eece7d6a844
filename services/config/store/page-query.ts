/** Where a list goes on: below this time and id. */
export interface PageCursor {
  readonly createdAt: Date;
  readonly id: string;
}

export interface PageRequest {
  readonly after: PageCursor | undefined;
  readonly skip: number;
  readonly size: number;
}

/** A page of rows, and whether there are more. */
export interface Page<T> {
  readonly items: T[];
  readonly more: boolean;
}

/** Bytes of settings in one page, so that an answer stays below what gRPC clients accept by default (4 MiB). */
const PAGE_BYTES = 3 * 1024 * 1024;

/**
 * The statement for a page of a table with settings, newest first. It reads one row more than is shown, and ends a page
 * early when its settings get large. $1 to $4 are time and id of the cursor, how many to skip, and the size.
 */
export function pageSql(options: { table: string; columns: string; id: string; where?: string }): string {
  const { table, columns, id, where = "true" } = options;
  const order = `created_at DESC, ${id} DESC`;
  return `
    WITH found AS (
      SELECT ${columns} FROM ${table}
      WHERE ${where} AND ($1::timestamptz IS NULL OR (created_at, ${id}) < ($1, $2))
      ORDER BY ${order} OFFSET $3 LIMIT $4::int + 1
    ), measured AS (
      SELECT *, count(*) OVER () AS found_rows,
        sum(octet_length(settings::text)) OVER (ORDER BY ${order}) - octet_length(settings::text) AS bytes_before
      FROM found
    )
    SELECT * FROM measured WHERE bytes_before < ${PAGE_BYTES} ORDER BY ${order}`;
}

/** Parameters of {@link pageSql}, before those of its `where`. */
export function pageParams({ after, skip, size }: PageRequest): unknown[] {
  return [after?.createdAt, after?.id, skip, size];
}

/** The page that the statement found. */
export function pageOf<R extends { found_rows: number }, T>(
  rows: readonly R[],
  size: number,
  item: (row: R) => T,
): Page<T> {
  return { items: rows.slice(0, size).map(item), more: (rows[0]?.found_rows ?? 0) > Math.min(rows.length, size) };
}
