import type { JetStreamManager } from "nats";
import { abortable, within } from "../abortable.ts";
import { dependencyDown } from "../rpc/errors.ts";
import type { Bus, BusLog, BusMessage, ConsumeOptions, Publication, Subscription } from "./bus.ts";
import { NatsConsumer } from "./nats-consumer.ts";
import { NatsLink, type Session } from "./nats-link.ts";
import { NatsListener, notifySubject } from "./nats-listener.ts";
import { toHeaders } from "./nats-message.ts";
import { ensureStream, type StreamLimits } from "./nats-stream.ts";
import { Slots } from "./slots.ts";
import { assertPattern, assertSubject } from "./subjects.ts";
import { subscription } from "./subscription.ts";
import { assertPublication, assertSize, compileConsumer, tooManyPending } from "./validation.ts";

export interface NatsBusConfig extends Partial<StreamLimits> {
  /** `nats://[user:password@|token@]host[:port]`, or `tls://…`; several separated by commas. */
  url: string;
  log: BusLog;
  /** The name that the server shows for this process; default `agentmesh`. */
  name?: string | undefined;
  /** How often the server is asked for a sign of life; default 5 s. A connection that nobody closed is found dead after 2 to 3 times that. */
  pingIntervalMs?: number | undefined;
  /** How long a publication waits for its acknowledgement; default 5 s. */
  publishTimeoutMs?: number | undefined;
  /** Publications that are sent and not acknowledged yet; more wait. Default 256. */
  maxInFlight?: number | undefined;
  /** Publications that may wait; more are refused with CONCURRENCY_LIMIT. Default 10 000. */
  maxPending?: number | undefined;
  /** How long `unsubscribe` and `close` wait for running handlers; default 10 s. */
  drainMs?: number | undefined;
}

/** How long `consume`, `listen` and `ping` wait for the server. */
const answerWithinMs = 3_000;
const noResponders = "503";

/**
 * The bus over NATS with JetStream (server ≥ 2.9): one file-backed stream for all events, a durable pull consumer per
 * durable name and pattern, core NATS for listeners.
 *
 * `publish` resolves when the stream has stored the message. That does not make NATS the truth: a server may lose what it
 * has acknowledged (it syncs its files every two minutes), and a stream that is gone is created anew, empty. The outbox
 * rows in Postgres are what events are rebuilt from.
 *
 * While the server is away `publish` fails at once, consumers and listeners wait, and the connection is tried for ever.
 */
export class NatsBus implements Bus {
  readonly #log: BusLog;
  readonly #limits: StreamLimits;
  readonly #publishTimeoutMs: number;
  readonly #drainMs: number;
  readonly #link: NatsLink;
  readonly #slots: Slots;
  readonly #consumers = new Set<NatsConsumer>();
  readonly #listeners = new Set<NatsListener>();
  #prepared: { session: Session; manager: Promise<JetStreamManager> } | undefined;
  #closing: Promise<void> | undefined;

  constructor(config: NatsBusConfig) {
    this.#log = config.log;
    this.#limits = {
      stream: config.stream ?? "AGENTMESH",
      prefix: config.prefix ?? "",
      maxAgeMs: config.maxAgeMs ?? 72 * 3_600_000,
      maxBytes: config.maxBytes ?? 1024 ** 3,
      dedupWindowMs: config.dedupWindowMs ?? 120_000,
      replicas: config.replicas ?? 1,
    };
    assertNames(this.#limits);
    this.#publishTimeoutMs = config.publishTimeoutMs ?? 5_000;
    this.#drainMs = config.drainMs ?? 10_000;
    this.#slots = new Slots(config.maxInFlight ?? 256, config.maxPending ?? 10_000, tooManyPending);
    this.#link = new NatsLink(
      { url: config.url, name: config.name ?? "agentmesh", log: config.log, pingIntervalMs: config.pingIntervalMs },
      (session) => {
        for (const listener of this.#listeners) listener.attach(session.connection);
        for (const consumer of this.#consumers) consumer.restart();
      },
    );
  }

  async publish(publication: Publication, signal?: AbortSignal): Promise<void> {
    assertPublication(publication);
    signal?.throwIfAborted();
    await this.#sessionOrDown(signal);
    const release = await this.#slots.acquire(signal);
    try {
      const session = await this.#sessionOrDown(signal);
      const stored = within(
        this.#store(session, publication),
        this.#publishTimeoutMs,
        () => new Error("not acknowledged in time"),
      );
      await abortable(stored, signal, session.down);
    } catch (error) {
      throw error === signal?.reason ? error : dependencyDown("nats", error);
    } finally {
      release();
    }
  }

  async consume(options: ConsumeOptions): Promise<Subscription> {
    const compiled = compileConsumer(options);
    this.#assertOpen();
    const consumer = new NatsConsumer({
      consumer: compiled,
      ...this.#limits,
      log: this.#log,
      session: () => this.#link.session,
      prepare: (session) => this.#prepare(session, true),
    });
    this.#consumers.add(consumer);
    consumer.restart();
    const late = () => new Error("late");
    await within(consumer.started, answerWithinMs, late).catch(() => {
      this.#log.warn({ durable: compiled.durable }, "bus consumer waits for NATS");
    });
    return subscription(async () => {
      await consumer.stop(this.#drainMs);
      this.#consumers.delete(consumer);
    });
  }

  notify(subject: string, data: Uint8Array): void {
    assertSubject(subject);
    assertSize(data);
    this.#link.session?.connection.publish(notifySubject(this.#limits.prefix, subject), data);
  }

  async listen(pattern: string, onMessage: (message: BusMessage) => void): Promise<Subscription> {
    assertPattern(pattern);
    this.#assertOpen();
    const listener = new NatsListener({ pattern, prefix: this.#limits.prefix, log: this.#log, onMessage });
    this.#listeners.add(listener);
    const session = this.#link.session ?? (await this.#link.next(answerWithinMs));
    this.#assertOpen();
    if (session !== undefined) {
      listener.attach(session.connection);
      // Once the server has answered, it has the subscription too. When it goes away, the next session subscribes again.
      await this.#flush(session).catch(() => {});
    }
    return subscription(async () => {
      this.#listeners.delete(listener);
      listener.stop();
    });
  }

  async ping(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const session = await this.#sessionOrDown(signal);
    try {
      await abortable(this.#flush(session), signal);
    } catch (error) {
      throw error === signal?.reason ? error : dependencyDown("nats", error);
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#consumers].map((consumer) => consumer.stop(this.#drainMs)));
    for (const listener of this.#listeners) listener.stop();
    await this.#link.close();
  }

  async #store(session: Session, publication: Publication): Promise<void> {
    const { subject, id, data } = publication;
    const send = async () => {
      const headers = toHeaders(publication);
      const jetstream = session.connection.jetstream({ timeout: this.#publishTimeoutMs });
      await jetstream.publish(this.#limits.prefix + subject, data, {
        msgID: id,
        headers,
        expect: { streamName: this.#limits.stream },
      });
    };
    await this.#prepare(session);
    try {
      await send();
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === noResponders)) throw error;
      // No stream takes the subject any more: the server has lost its store.
      await this.#prepare(session, true);
      await send();
    }
  }

  /** Makes sure that the stream is there: once per session, and `anew` when something hints that it is gone. */
  #prepare(session: Session, anew = false): Promise<JetStreamManager> {
    if (this.#prepared?.session === session && !anew) return this.#prepared.manager;
    const manager = this.#setUp(session);
    const prepared = { session, manager };
    this.#prepared = prepared;
    manager.catch(() => {
      if (this.#prepared === prepared) this.#prepared = undefined;
    });
    return manager;
  }

  async #setUp({ connection }: Session): Promise<JetStreamManager> {
    const manager = await connection.jetstreamManager({ checkAPI: false, timeout: answerWithinMs });
    await ensureStream(manager, this.#limits);
    return manager;
  }

  #flush({ connection, down }: Session): Promise<void> {
    return abortable(
      within(connection.flush(), answerWithinMs, () => new Error("no answer")),
      down,
    );
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw dependencyDown("nats");
  }

  /** Waits for the first attempt to connect, so that a process may publish as soon as it has a bus; later never. */
  async #sessionOrDown(signal: AbortSignal | undefined): Promise<Session> {
    this.#assertOpen();
    await abortable(this.#link.tried, signal);
    this.#assertOpen();
    const { session } = this.#link;
    if (session === undefined) throw dependencyDown("nats");
    return session;
  }
}

function assertNames({ stream, prefix }: StreamLimits): void {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(stream)) throw new TypeError(`not a stream name: ${JSON.stringify(stream)}`);
  if (!/^([A-Za-z0-9_-]{1,64}\.)*$/.test(prefix))
    throw new TypeError(`not a subject prefix: ${JSON.stringify(prefix)}`);
}
