import type { LogFields } from "../telemetry/log-fields.ts";

/** What is published: an event that other parts of the mesh act upon. */
export interface Publication {
  /** `agentmesh.<kind>.v1.<tenant_id>.<…>`; see `subjects.ts` for the form. */
  readonly subject: string;
  /**
   * Names the event, whatever its subject: a second publication with the same id within the dedup window (default two
   * minutes) is accepted and not delivered again. 1 to 128 visible ASCII characters.
   */
  readonly id: string;
  /** At most {@link maxDataBytes}. */
  readonly data: Uint8Array;
  /** Names in lower case (`traceparent`), values printable ASCII; together at most {@link maxHeaderBytes}. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** What a handler or a listener gets. The data may be shared with other receivers: read it, do not write it. */
export interface BusMessage {
  readonly subject: string;
  /** The publication's id; empty for a notification. */
  readonly id: string;
  readonly data: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
  /**
   * 1 for the first delivery to this durable, 2 for the second, … A server may count a delivery less that found its
   * consumer gone. Always 1 for a listener.
   */
  readonly attempt: number;
}

export interface ConsumeOptions {
  /**
   * The name of a group of consumers, in all processes, of which each message goes to one: the service's name, or
   * `<service>-<purpose>`. 1 to 64 of `a-z 0-9 - _`. It outlives its consumers: what is published while none is there
   * is delivered when one returns.
   */
  readonly durable: string;
  /** Subjects with NATS wildcards (`*` one token, a last `>` one or more). They must not overlap. */
  readonly subjects: readonly string[];
  /** The handler's failure on this delivery (or a later one) makes the message poison; default 5. */
  readonly maxDeliver?: number;
  /** How long to wait before the second, third, … delivery; the last entry repeats. Default 1 s, 5 s, 15 s, 60 s. Up to 10 % are added. */
  readonly backoffMs?: readonly number[];
  /** NATS: how long the server waits for a sign of life before it delivers to another consumer; default 30 s. Sent by the bus itself while a handler runs. */
  readonly ackWaitMs?: number;
  /** Handlers that run at once in this consumer; default 8, at most 64. With 1 messages are handled one after the other, still in no promised order. */
  readonly parallelism?: number;
  /** A handler that takes longer has its signal aborted and has failed; default 5 minutes. */
  readonly timeoutMs?: number;
  /**
   * Handles a message: returning acknowledges it, throwing has it delivered again after a backoff. It may see a message
   * more than once, also after it returned (a crash before the acknowledgement): its effect must be idempotent, best by
   * writing the id in the same transaction. The signal aborts when the handler takes too long and when the bus stops
   * waiting for it.
   */
  onMessage(message: BusMessage, signal: AbortSignal): Promise<void>;
  /**
   * Called in place of another delivery for a message that failed too often, with its last error; put it where a person
   * finds it. When it throws, the message is delivered again. Without it the message is logged (not its data) and dropped.
   */
  onPoison?(message: BusMessage, error: unknown): Promise<void>;
}

export interface Subscription extends AsyncDisposable {
  /**
   * No further message is handed out; resolves when the running handlers are done, or have been given up after the bus's
   * `drainMs` (their messages are delivered again, to another consumer when there is one).
   */
  unsubscribe(): Promise<void>;
}

/**
 * Events between the parts of the mesh. Two implementations pass one contract suite: `NatsBus` (JetStream) and
 * `EmbeddedBus` (this process).
 *
 * There are two kinds of delivery. `publish` → `consume` is durable and at least once: what `publish` resolved for is
 * delivered to every durable name until a handler returns. `publish` and `notify` → `listen` is best effort to every
 * process: a hint to look again, never the only way to learn of something.
 *
 * The bus is no source of truth. An event is first a row in its service's outbox, committed with the change it speaks of;
 * a relay publishes the row and marks it when `publish` resolves. So after a crash anywhere the row is published again,
 * deduplicated within the window, and handled at least once.
 *
 * Errors of every method: `TypeError` for a malformed subject, id, header or option (a programming error), the signal's
 * reason when it aborts, `AppError` otherwise: UNAVAILABLE `DEPENDENCY_DOWN` with `retryAfterMs` when the bus is away,
 * closed or does not answer, RESOURCE_EXHAUSTED `CONCURRENCY_LIMIT` when too much waits, `PAYLOAD_TOO_LARGE`.
 */
export interface Bus extends AsyncDisposable {
  /** Publishes durably; resolves when the bus has taken charge of the message. Repeating it with the same id is safe. */
  publish(message: Publication, signal?: AbortSignal): Promise<void>;
  /**
   * Starts a consumer of a durable. When the bus is away it resolves after a short wait all the same and starts as soon
   * as the bus is there.
   */
  consume(options: ConsumeOptions): Promise<Subscription>;
  /** Tells every process that listens, this one too; never waits and never fails: what cannot be sent is dropped. */
  notify(subject: string, data: Uint8Array): void;
  /** Calls `onMessage` for each message that is published or notified from now on, in every process. What it throws is logged. */
  listen(subject: string, onMessage: (message: BusMessage) => void): Promise<Subscription>;
  /** Rejects with `DEPENDENCY_DOWN` when the bus is not usable now. */
  ping(signal?: AbortSignal): Promise<void>;
  /** Stops consumers as `unsubscribe` does, then lets go of everything; pending publishes reject. May be called twice. */
  close(): Promise<void>;
}

/** Where the bus reports connection changes, redeliveries and poison; `Log` fits. Never given data, headers or URLs. */
export interface BusLog {
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
}

/** Fits with headers into NATS' default `max_payload` of 1 MiB. */
export const maxDataBytes = 1_000_000;
export const maxHeaderBytes = 16_384;
