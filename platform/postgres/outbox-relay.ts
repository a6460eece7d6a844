import type { Bus } from "#platform/bus/bus.ts";
import type { Log } from "#platform/telemetry/log.ts";
import type { Database } from "./database.ts";
import { outboxTopic, schemaName } from "./outbox.ts";
import { type BatchResult, type FailedEvent, publishBatch } from "./outbox-batch.ts";

export interface OutboxRelayOptions {
  db: Database;
  /** The services' schemas. */
  schemas: readonly string[];
  bus: Pick<Bus, "publish">;
  log: Pick<Log, "info" | "warn">;
  /** How often to look without being woken: for what a process left that died. Default 1 000 ms. */
  pollMs?: number | undefined;
  /** Most events in one transaction; default 200. */
  batch?: number | undefined;
  /**
   * How long one batch may take to publish; what the bus has not acknowledged by then is published again a little later,
   * and by its id joins or repeats the first attempt. The embedded bus acknowledges when handlers are done, so this bounds
   * how long a slow handler keeps other events waiting. Default 1 000 ms.
   */
  publishMs?: number | undefined;
  /** Longest wait between attempts while the bus or the database is away; default 5 000 ms. */
  maxBackoffMs?: number | undefined;
  /** How long published events are kept (for republishSince); default 24 hours. */
  retentionMs?: number | undefined;
  /** How often older ones are looked for; default a minute. */
  cleanEveryMs?: number | undefined;
}

export interface OutboxRelay extends AsyncDisposable {
  start(): void;
  /** Look now. Local commits wake the relay by themselves. */
  wake(): void;
  /** Resolves when the batch at hand is published and marked. */
  stop(): Promise<void>;
}

/**
 * Publishes what waits in the outboxes, at least once, and the events of one tenant and subject in their order: an event
 * that fails holds back the later ones of its subject, and no others. Every process that writes events runs one; it is woken by the commits
 * of its process and polls for what others left. (No NOTIFY from a trigger: it makes PostgreSQL commit one transaction
 * at a time.) Several relays take turns per schema, batch by batch, through an advisory lock.
 */
export function createOutboxRelay(options: OutboxRelayOptions): OutboxRelay {
  const lines = options.schemas.map((schema) => new Line(schemaName(schema), options));
  const relay: OutboxRelay = {
    start: () => lines.forEach((line) => void line.start()),
    wake: () => lines.forEach((line) => void line.wake()),
    stop: async () => void (await Promise.all(lines.map((line) => line.stop()))),
    [Symbol.asyncDispose]: () => relay.stop(),
  };
  return relay;
}

const retryBusyMs = 50;
const cleanAtOnce = 5_000;

/** The outbox of one schema. */
class Line {
  readonly #schema: string;
  readonly #options: OutboxRelayOptions;
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;
  #woken = false;
  #wakeUp: () => void = () => {};
  #failures = 0;
  #cleanedAt = performance.now();

  constructor(schema: string, options: OutboxRelayOptions) {
    this.#schema = schema;
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  wake(): void {
    this.#woken = true;
    this.#wakeUp();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { db, pollMs = 1_000 } = this.#options;
    const unsubscribe = db.onCommitted(outboxTopic(this.#schema), () => this.wake());
    try {
      while (!this.#stopping.signal.aborted) {
        const woken = this.#woken;
        this.#woken = false;
        const result = await this.#publish();
        if (result === undefined) await this.#wait(this.#backoffMs(), false);
        else if (result === "busy") await this.#wait(woken ? retryBusyMs : pollMs, !woken, woken);
        else if (result.more) continue;
        else await this.#wait(pollMs, true);
      }
    } finally {
      unsubscribe();
    }
  }

  /** One batch; undefined when nothing could be published. */
  async #publish(): Promise<BatchResult | "busy" | undefined> {
    const { log, batch = 200, publishMs = 1_000, maxBackoffMs = 5_000 } = this.#options;
    const { db, bus } = this.#options;
    const fields = { schema: this.#schema };
    try {
      const stopping = this.#stopping.signal;
      const result = await publishBatch({ db, bus, schema: this.#schema, batch, publishMs, maxBackoffMs, stopping });
      if (result === "busy") return result;
      for (const { eventId, subject, attempts, error } of result.failed) {
        // Powers of two: a message that fails for days does not fill the log.
        if ((attempts & (attempts - 1)) === 0) {
          log.warn(
            { ...fields, event_id: eventId, bus_subject: subject, attempt: attempts, err: error },
            "event not published",
          );
        }
      }
      if (result.away) return this.#failed();
      if (result.published > 0) {
        if (this.#failures > 0) log.info(fields, "outbox is published again");
        this.#failures = 0;
      }
      if (!result.more) await this.#clean();
      return result;
    } catch (error) {
      if (this.#failures === 0) log.warn({ ...fields, err: error as Error }, "outbox cannot be read");
      return this.#failed();
    }
  }

  /** Not each time: a message that fails for days does not fill the log, and one that takes a little longer is no news. */
  #warn({ eventId, subject, attempts, error }: FailedEvent): void {
    const isPowerOfTwo = (attempts & (attempts - 1)) === 0;
    if (!isPowerOfTwo || (error.name === "TimeoutError" && attempts < 8)) return;
    const fields = { schema: this.#schema, event_id: eventId, bus_subject: subject, attempt: attempts, err: error };
    this.#options.log.warn(fields, "event not published");
  }

  #failed(): undefined {
    this.#failures++;
    return undefined;
  }

  #backoffMs(): number {
    return Math.min(this.#options.maxBackoffMs ?? 5_000, 50 * 2 ** Math.min(this.#failures, 16));
  }

  /** Waits; a wake ends it when `wakeable`. `again` keeps the wake for the next round. */
  async #wait(ms: number, wakeable: boolean, again = false): Promise<void> {
    if (wakeable && this.#woken) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms);
      const stop = this.#stopping.signal;
      function done() {
        clearTimeout(timer);
        stop.removeEventListener("abort", done);
        resolve();
      }
      stop.addEventListener("abort", done, { once: true });
      if (stop.aborted) done();
      this.#wakeUp = wakeable ? done : () => {};
    });
    this.#wakeUp = () => {};
    this.#woken ||= again;
  }

  async #clean(): Promise<void> {
    const { db, retentionMs = 86_400_000, cleanEveryMs = 60_000 } = this.#options;
    if (performance.now() - this.#cleanedAt < cleanEveryMs) return;
    const table = `${this.#schema}.outbox`;
    const sql = `DELETE FROM ${table} WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM ${table} WHERE published_at < now() - make_interval(secs => $1) LIMIT ${cleanAtOnce}))`;
    const deleted = await db.worker((tx) => tx.execute(sql, [retentionMs / 1_000]));
    if (deleted < cleanAtOnce) this.#cleanedAt = performance.now();
  }
}
