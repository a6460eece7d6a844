import { assertPublication } from "#platform/bus/validation.ts";
import type { Tx } from "./transaction.ts";

/** An event to be published on the bus after the transaction that wrote it. */
export interface OutboxMessage {
  /** Subject on the bus, such as `agentmesh.config.v1.<tenant id>`. */
  subject: string;
  /** `evt_…`; the bus and its consumers drop repetitions by it. */
  eventId: string;
  tenantId: string;
  payload: Uint8Array;
  /** Travel with the message: a trace context, say. */
  headers?: Readonly<Record<string, string>> | undefined;
}

/**
 * Writes an event into the outbox of a service's schema, in the transaction of the change that it speaks of: an
 * outbox relay publishes it at least once if and only if that transaction commits, after earlier events of the same tenant and subject.
 * Throws what the bus would throw for a message that it does not take, so that no such message ever waits.
 */
export async function enqueue(tx: Tx, schema: string, message: OutboxMessage): Promise<void> {
  const { tenantId, eventId, subject, payload, headers = {} } = message;
  assertPublication({ subject, id: eventId, data: payload, headers });
  await tx.execute(
    `INSERT INTO ${schemaName(schema)}.outbox (tenant_id, event_id, subject, payload, headers) VALUES ($1, $2, $3, $4, $5)`,
    [tenantId, eventId, subject, payload, headers],
  );
  tx.announce(outboxTopic(schema));
}

/** The topic that {@link enqueue} announces; Database.onCommitted. */
export function outboxTopic(schema: string): string {
  return `outbox.${schema}`;
}

/** The name of a schema, fit to be put into a statement. */
export function schemaName(schema: string): string {
  if (!/^[a-z][a-z0-9_]{0,40}$/.test(schema)) throw new TypeError("not a schema name");
  return schema;
}

/**
 * Has the events that were published since `since` published again, for a bus that lost its store. Consumers drop what
 * they know. Reaches back as far as the relay keeps published rows. For a worker transaction; returns how many.
 */
export async function republishSince(tx: Tx, schema: string, since: Date): Promise<number> {
  const count = await tx.execute(
    `UPDATE ${schemaName(schema)}.outbox SET published_at = NULL, attempts = 0, retry_at = NULL WHERE published_at >= $1`,
    [since],
  );
  tx.announce(outboxTopic(schema));
  return count;
}
