import {
  createInbox,
  type JetStreamManager,
  type Msg,
  type NatsConnection,
  type Subscription as NatsSubscription,
  nanos,
} from "nats";
import { abortable, pause, within } from "../abortable.ts";
import type { BusLog } from "./bus.ts";
import { codeOf, type Session } from "./nats-link.ts";
import { answers, deliveryOf, fromMsg } from "./nats-message.ts";
import { consumerName, ensureConsumer } from "./nats-stream.ts";
import type { Consumer } from "./validation.ts";
import { Worker } from "./worker.ts";

/** A pull for which the server has nothing is answered after this time, so a longer silence means that it was lost. */
const pullExpiresMs = 5_000;
const silenceMs = pullExpiresMs + 1_000;
const maxSetupPauseMs = 2_000;
const endPullsWithinMs = 1_000;

interface Deps {
  consumer: Consumer;
  stream: string;
  prefix: string;
  log: BusLog;
  /** The session of now, if the server is there. */
  session: () => Session | undefined;
  /** Makes sure that the stream is there and gives the manager of this session. */
  prepare: (session: Session) => Promise<JetStreamManager>;
}

/** One JetStream consumer. */
interface Feed {
  name: string;
  filter: string;
  /** When each pull that the server has not answered was sent, oldest first. */
  asked: number[];
}

/**
 * Takes messages of one durable from JetStream, by pull requests for one message each and never more than handlers are
 * free: what the server has delivered is being handled, so its ack timer and its delivery count mean what they say. The
 * wire protocol is used as it is (NATS ADR-15 and ADR-37), because the client's own consumers prefetch, and may wait as
 * long as a pull lasts after the server was restarted.
 */
export class NatsConsumer {
  readonly #deps: Deps;
  readonly #worker: Worker;
  readonly #feeds: readonly Feed[];
  /** Delivered and waiting for a free handler: with several feeds each one asks for all handlers that are free. */
  readonly #waiting: Msg[] = [];
  /** Deliveries without a verdict; the server is told again and again that they are worked on. */
  readonly #open = new Set<Msg>();
  readonly #handling = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #started = Promise.withResolvers<void>();
  #inbox: { connection: NatsConnection; subscription: NatsSubscription } | undefined;
  #setup: Promise<void> | undefined;
  #pulse: NodeJS.Timeout | undefined;
  #watch: NodeJS.Timeout | undefined;

  constructor(deps: Deps) {
    this.#deps = deps;
    this.#worker = new Worker(deps.consumer, deps.log, () => this.#next());
    this.#feeds = deps.consumer.subjects.map((pattern) => ({
      name: consumerName(deps.consumer.durable, pattern),
      filter: deps.prefix + pattern,
      asked: [],
    }));
  }

  /** Resolves when it takes messages for the first time. */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  /** Sets up what is missing on the server and pulls anew: when a session begins, and when something looks wrong. */
  restart(afterMs = 0): void {
    this.#setup ??= this.#setUp(afterMs).finally(() => {
      this.#setup = undefined;
    });
  }

  /** Takes no more messages; what waits goes back at once, running handlers have `drainMs`. */
  async stop(drainMs: number): Promise<void> {
    this.#stopping.abort(new Error("unsubscribed"));
    clearInterval(this.#watch);
    const drained = this.#worker.drain(drainMs);
    // The pulls end first: what is given back while one of ours is out would come to this inbox again, and be lost in it
    // until the ack timer ends.
    await this.#endPulls();
    for (const message of this.#waiting.splice(0)) this.#settle(message, answers.again(0));
    await drained;
    await Promise.all(this.#handling);
    await this.#setup;
  }

  async #endPulls(): Promise<void> {
    const session = this.#deps.session();
    if (session === undefined || this.#inbox === undefined) return;
    const late = () => new Error("the server does not answer");
    await abortable(within(this.#inbox.subscription.drain(), endPullsWithinMs, late), session.down).catch(() => {});
  }

  async #setUp(afterMs: number): Promise<void> {
    const stopping = this.#stopping.signal;
    let wait = afterMs;
    for (let attempt = 0; ; attempt++) {
      if (wait > 0) await pause(wait, stopping).catch(() => {});
      const session = this.#deps.session();
      // Without a session, the next one begins with a restart.
      if (session === undefined || stopping.aborted) return;
      try {
        await abortable(this.#prepare(session), session.down, stopping);
        this.#pull();
        this.#watch ??= setInterval(() => this.#checkSilence(), 1_000);
        this.#started.resolve();
        return;
      } catch (error) {
        const { durable } = this.#deps.consumer;
        if (attempt === 0 && !stopping.aborted)
          this.#deps.log.warn({ durable, code: codeOf(error) }, "bus consumer is not ready");
      }
      wait = Math.min(100 * 2 ** attempt, maxSetupPauseMs) * (0.5 + Math.random() / 2);
    }
  }

  async #prepare(session: Session): Promise<void> {
    const { stream, consumer } = this.#deps;
    const manager = await this.#deps.prepare(session);
    for (const { name, filter } of this.#feeds) await ensureConsumer(manager, stream, name, filter, consumer);
    for (const feed of this.#feeds) feed.asked = [];
    const { connection } = session;
    if (this.#inbox?.connection === connection && !this.#inbox.subscription.isClosed()) return;
    const subscription = connection.subscribe(`${createInbox()}.*`, {
      callback: (error, message) => (error === null ? this.#receive(message) : this.restart(maxSetupPauseMs)),
    });
    this.#inbox = { connection, subscription };
  }

  #pull(): void {
    const session = this.#deps.session();
    if (session === undefined || this.#inbox === undefined || this.#stopping.signal.aborted) return;
    const free = this.#worker.free - this.#waiting.length;
    for (const { name, asked } of this.#feeds) {
      while (asked.length < free) {
        asked.push(performance.now());
        const reply = this.#inbox.subscription.getSubject().replace("*", name);
        const request = JSON.stringify({ batch: 1, expires: nanos(pullExpiresMs) });
        session.connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${this.#deps.stream}.${name}`, request, { reply });
      }
    }
  }

  #receive(message: Msg): void {
    const delivery = deliveryOf(message.reply);
    const from = delivery?.consumer ?? message.subject.slice(message.subject.lastIndexOf(".") + 1);
    // Any answer uses up one pull; which of them does not matter.
    this.#feeds.find(({ name }) => name === from)?.asked.shift();
    if (delivery === undefined) {
      // 408: the pull expired. All else (404, 409, 503): the consumer, the stream or the server went away.
      if (message.headers?.code === 408) this.#pull();
      else this.restart(100 + Math.random() * 200);
      return;
    }
    this.#open.add(message);
    this.#pulse ??= setInterval(() => this.#showLife(), this.#deps.consumer.ackWaitMs / 3);
    if (this.#stopping.signal.aborted) {
      this.#settle(message, answers.again(0));
      return;
    }
    this.#waiting.push(message);
    this.#next();
  }

  #next(): void {
    while (this.#worker.free > 0) {
      const message = this.#waiting.shift();
      if (message === undefined) break;
      const handling = this.#handle(message).finally(() => this.#handling.delete(handling));
      this.#handling.add(handling);
    }
    this.#pull();
  }

  async #handle(message: Msg): Promise<void> {
    const subject = message.subject.slice(this.#deps.prefix.length);
    const attempt = deliveryOf(message.reply)?.attempt ?? 1;
    const verdict = await this.#worker.run(fromMsg(message, subject, attempt));
    this.#settle(message, typeof verdict === "string" ? answers[verdict] : answers.again(verdict.againInMs));
  }

  #settle(message: Msg, answer: Uint8Array): void {
    this.#open.delete(message);
    if (this.#open.size === 0) {
      clearInterval(this.#pulse);
      this.#pulse = undefined;
    }
    this.#answer(message, answer);
  }

  /** An answer that does not reach the server is made up for by its ack timer: it delivers the message again. */
  #answer(message: Msg, answer: Uint8Array): void {
    const connection = this.#deps.session()?.connection;
    if (connection !== undefined && message.reply !== undefined) connection.publish(message.reply, answer);
  }

  #showLife(): void {
    for (const message of this.#open) this.#answer(message, answers.working);
  }

  #checkSilence(): void {
    const lost = performance.now() - silenceMs;
    if (this.#feeds.some(({ asked }) => asked[0] !== undefined && asked[0] < lost)) this.restart();
  }
}
