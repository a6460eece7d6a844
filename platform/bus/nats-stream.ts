import { createHash } from "node:crypto";
import {
  AckPolicy,
  DeliverPolicy,
  DiscardPolicy,
  type JetStreamManager,
  nanos,
  RetentionPolicy,
  StorageType,
} from "nats";
import type { Consumer } from "./validation.ts";

/** The stream that keeps what is published until every durable has had time to take it. */
export interface StreamLimits {
  /** Its name; default `AGENTMESH`. */
  stream: string;
  /** Put before every subject, so that several meshes can share a server: empty, or ends with a dot. */
  prefix: string;
  /** Messages are dropped at this age, delivered or not; default 72 h. */
  maxAgeMs: number;
  /** Oldest messages are dropped when the stream is larger than this; default 1 GiB. The server sets the space aside. */
  maxBytes: number;
  /** How long the server remembers a publication's id; default 2 minutes. */
  dedupWindowMs: number;
  /** Servers of a cluster that keep a copy; default 1. */
  replicas: number;
}

/** JetStream error codes (nats-server's errors.json). */
const streamNameInUse = 10058;

/**
 * Creates the stream when it is not there. One that is there is left as it is: its limits are then its operator's.
 *
 * Limits with "discard old" and not "discard new": a full stream that refuses would stop all events until the oldest
 * have aged, although nearly all of them have been delivered. What is lost when a durable falls behind by more than the
 * limits is in the outbox tables still.
 */
export async function ensureStream(manager: JetStreamManager, limits: StreamLimits): Promise<void> {
  const exists = await manager.streams.info(limits.stream).then(() => true, ignoring("404"));
  if (exists) return;
  const create = manager.streams.add({
    name: limits.stream,
    subjects: [`${limits.prefix}agentmesh.>`],
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.Old,
    max_age: nanos(limits.maxAgeMs),
    max_bytes: limits.maxBytes,
    duplicate_window: nanos(limits.dedupWindowMs),
    num_replicas: limits.replicas,
  });
  await create.catch((error: unknown) => {
    // Another process of another version was faster.
    if (apiErrorCode(error) !== streamNameInUse) throw error;
  });
}

/**
 * Creates or updates the JetStream consumer of one durable and one subject pattern. It starts with everything that the
 * stream holds, so that a service that is deployed later, or boots later, misses nothing.
 *
 * `max_deliver` is unlimited on the server: a message at its limit would silently stay undelivered there. The consumer
 * counts (see `Worker`), hands it to `onPoison` and ends it.
 */
export async function ensureConsumer(
  manager: JetStreamManager,
  stream: string,
  name: string,
  filter: string,
  consumer: Consumer,
): Promise<void> {
  await manager.consumers.add(stream, {
    durable_name: name,
    filter_subject: filter,
    deliver_policy: DeliverPolicy.All,
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(consumer.ackWaitMs),
    max_deliver: -1,
    // Messages that wait for another attempt count in it; at this many the consumer stops taking new ones.
    max_ack_pending: 2_000,
  });
}

/** One JetStream consumer per pattern: several filters in one need a server ≥ 2.10. */
export function consumerName(durable: string, pattern: string): string {
  return `${durable}-${createHash("sha256").update(pattern).digest("hex").slice(0, 12)}`;
}

function ignoring(code: string): (error: unknown) => false {
  return (error) => {
    if (error instanceof Error && "code" in error && error.code === code) return false;
    throw error;
  };
}

function apiErrorCode(error: unknown): number | undefined {
  const api = error instanceof Error && "api_error" in error ? (error.api_error as { err_code?: number }) : undefined;
  return api?.err_code;
}
