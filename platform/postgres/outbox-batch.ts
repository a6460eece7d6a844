import { Code } from "@connectrpc/connect";
import type { Bus } from "#platform/bus/bus.ts";
import { AppError } from "#platform/rpc/errors.ts";
import type { Database } from "./database.ts";

export interface BatchOptions {
  db: Database;
  bus: Pick<Bus, "publish">;
  schema: string;
  batch: number;
  publishMs: number;
  maxBackoffMs: number;
  /** Once aborted, no further message is begun; those under way finish. */
  stopping: AbortSignal;
}

export interface FailedEvent {
  tenantId: string;
  eventId: string;
  subject: string;
  /** This one included. */
  attempts: number;
  error: Error;
}

export interface BatchResult {
  published: number;
  failed: FailedEvent[];
  /** True when more may be waiting that can be published now. */
  more: boolean;
  /** True when the bus said that it is away. */
  away: boolean;
}

interface Row {
  tenant_id: string;
  event_id: string;
  subject: string;
  payload: Buffer;
  headers: Record<string, string>;
  attempts: number;
}

/**
 * Claims what waits, publishes it and marks what the bus acknowledged, in one transaction: after a crash anywhere in it
 * the events are still waiting, and the bus drops by their ids those that it has. Claims by state and not by position:
 * positions become visible in another order than they were given. "busy" = another relay is at it.
 */
export async function publishBatch(o: BatchOptions): Promise<BatchResult | "busy"> {
  const table = `${o.schema}.outbox`;
  return o.db.worker(
    async (tx) => {
      if (!(await tx.tryLockKey("outbox", o.schema))) return "busy";
      const rows = await tx.query<Row>(
        `SELECT tenant_id, event_id, subject, payload, headers, attempts FROM ${table} o
         WHERE published_at IS NULL AND NOT EXISTS (
           SELECT FROM ${table} f WHERE f.tenant_id = o.tenant_id AND f.subject = o.subject
             AND f.published_at IS NULL AND f.retry_at > clock_timestamp())
         ORDER BY position LIMIT $1 FOR UPDATE SKIP LOCKED`,
        [o.batch],
      );
      if (rows.length === 0) return { published: 0, failed: [], more: false, away: false };
      const { published, failed, away } = await publishRows(rows, o);
      if (published.length > 0) {
        await tx.execute(
          `UPDATE ${table} o SET published_at = clock_timestamp(), retry_at = NULL
           FROM unnest($1::text[], $2::text[]) p (tenant_id, event_id) WHERE (o.tenant_id, o.event_id) = (p.tenant_id, p.event_id)`,
          [published.map((row) => row.tenant_id), published.map((row) => row.event_id)],
        );
      }
      if (failed.length > 0) {
        await tx.execute(
          `UPDATE ${table} o SET attempts = attempts + 1,
             retry_at = clock_timestamp() + least($3::float8, 100 * 2 ^ least(attempts, 20)) * interval '1 ms'
           FROM unnest($1::text[], $2::text[]) p (tenant_id, event_id) WHERE (o.tenant_id, o.event_id) = (p.tenant_id, p.event_id)`,
          [failed.map((event) => event.tenantId), failed.map((event) => event.eventId), o.maxBackoffMs],
        );
      }
      // Rows behind a failed one are no longer claimed, so that others get their turn.
      const more = rows.length === o.batch || published.length + failed.length < rows.length;
      return { published: published.length, failed, more, away };
    },
    { idleInTransactionMs: o.publishMs + 10_000 },
  );
}

/** Side by side, but the events of one tenant and subject one after the other, up to the first that fails. */
async function publishRows(
  rows: readonly Row[],
  o: BatchOptions,
): Promise<{ published: Row[]; failed: FailedEvent[]; away: boolean }> {
  const published: Row[] = [];
  const failed: FailedEvent[] = [];
  const deadline = AbortSignal.timeout(o.publishMs);
  let away = false;

  async function publishInOrder(events: readonly Row[]): Promise<void> {
    for (const row of events) {
      if (away || o.stopping.aborted || deadline.aborted) return;
      const error = await publishOne(row, o.bus, deadline);
      if (error === undefined) {
        published.push(row);
        continue;
      }
      away ||= error instanceof AppError && error.code === Code.Unavailable;
      failed.push({
        tenantId: row.tenant_id,
        eventId: row.event_id,
        subject: row.subject,
        attempts: row.attempts + 1,
        error,
      });
      return;
    }
  }
  await Promise.all([...Map.groupBy(rows, (row) => `${row.tenant_id} ${row.subject}`).values()].map(publishInOrder));
  return { published, failed, away };
}

/** The error, or undefined when the bus has acknowledged. Waits for the deadline at most, whatever the bus does. */
async function publishOne(row: Row, bus: Pick<Bus, "publish">, deadline: AbortSignal): Promise<Error | undefined> {
  const late = Promise.withResolvers<never>();
  const giveUp = () => late.reject(deadline.reason);
  deadline.addEventListener("abort", giveUp, { once: true });
  try {
    const publication = { subject: row.subject, id: row.event_id, data: row.payload, headers: row.headers };
    await Promise.race([bus.publish(publication, deadline), late.promise]);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error("the bus failed", { cause: error });
  } finally {
    deadline.removeEventListener("abort", giveUp);
  }
}
