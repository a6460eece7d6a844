import type { Msg, NatsConnection, Subscription } from "nats";
import type { BusLog, BusMessage } from "./bus.ts";
import { fromMsg } from "./nats-message.ts";
import { describe } from "./worker.ts";

/** Notifications have subjects of their own, outside the stream's: JetStream would keep them, and durables would get them. */
const notifyRoot = "agentmesh-notify.";

export function notifySubject(prefix: string, subject: string): string {
  return `${prefix}${notifyRoot}${subject}`;
}

interface Deps {
  pattern: string;
  prefix: string;
  log: BusLog;
  onMessage: (message: BusMessage) => void;
}

/** A listener's two subscriptions of core NATS: what is published under a pattern and what is notified under it. */
export class NatsListener {
  readonly #deps: Deps;
  #connection: NatsConnection | undefined;
  #subscriptions: Subscription[] = [];

  constructor(deps: Deps) {
    this.#deps = deps;
  }

  /** Subscribes on a connection; one that came back has kept its subscriptions. */
  attach(connection: NatsConnection): void {
    if (this.#connection === connection) return;
    this.#connection = connection;
    const { prefix, pattern } = this.#deps;
    this.#subscriptions = [prefix + pattern, notifySubject(prefix, pattern)].map((physical) =>
      connection.subscribe(physical, {
        callback: (error, message) => {
          if (error === null) this.#tell(message, message.subject.slice(physical.length - pattern.length));
          else this.#deps.log.error({ bus_subject: pattern, code: error.code }, "NATS refuses the subscription");
        },
      }),
    );
  }

  stop(): void {
    for (const subscription of this.#subscriptions) subscription.unsubscribe();
    this.#subscriptions = [];
  }

  #tell(message: Msg, subject: string): void {
    try {
      this.#deps.onMessage(fromMsg(message, subject, 1));
    } catch (error) {
      this.#deps.log.error({ bus_subject: subject, ...describe(error) }, "bus listener failed");
    }
  }
}
