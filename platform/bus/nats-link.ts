import { type ConnectionOptions, connect, ErrorCode, Events, type NatsConnection } from "nats";
import { abortable, pause, within } from "../abortable.ts";
import type { BusLog } from "./bus.ts";

/**
 * One period in which the server is reached. A connection that comes back is the same object and subscribes again by
 * itself; on another object nothing is subscribed yet.
 */
export interface Session {
  readonly connection: NatsConnection;
  /** Aborts when the period ends. */
  readonly down: AbortSignal;
}

export interface NatsLinkConfig {
  /** `nats://[user:password@|token@]host[:port]`, or `tls://…`; several separated by commas. A secret: it is never logged. */
  url: string;
  /** The name that the server shows for this connection. */
  name: string;
  log: BusLog;
  /** How often the server is asked for a sign of life. After two without an answer the connection counts as dead; default 5 s. */
  pingIntervalMs?: number | undefined;
}

/** Between two attempts to connect; half of it is random, so that a fleet does not come back as one. */
const reconnectMs = 500;
const dialTimeoutMs = 3_000;
const flushTimeoutMs = 1_000;

/** A connection to NATS that is tried for ever, also when the server is away at the start; it knows whether it is up. */
export class NatsLink {
  readonly #log: BusLog;
  readonly #closing = new AbortController();
  readonly #onUp: (session: Session) => void;
  readonly #ended: Promise<void>;
  #session: Session | undefined;
  readonly #tried = Promise.withResolvers<void>();
  #next = Promise.withResolvers<Session>();

  /** `onUp` is called with every session when it begins. */
  constructor(config: NatsLinkConfig, onUp: (session: Session) => void) {
    this.#log = config.log;
    this.#onUp = onUp;
    this.#ended = this.#keep(connectionOptions(config));
  }

  /** Resolves when the first attempt to connect has ended, one way or the other. */
  get tried(): Promise<void> {
    return this.#tried.promise;
  }

  /** The session of now; undefined while the server is away. */
  get session(): Session | undefined {
    return this.#session;
  }

  /** The session that begins within so long, if one does. */
  next(withinMs: number): Promise<Session | undefined> {
    return within(this.#next.promise, withinMs, () => new Error("late")).catch(() => undefined);
  }

  /** Sends what is buffered and closes; resolves when no socket or timer is left. */
  async close(): Promise<void> {
    const flushed = this.#session?.connection.flush();
    if (flushed !== undefined) await within(flushed, flushTimeoutMs, () => new Error("late")).catch(() => {});
    this.#closing.abort();
    await this.#ended;
    this.#tried.resolve();
  }

  async #keep(options: ConnectionOptions): Promise<void> {
    const closing = this.#closing.signal;
    let said = false;
    while (!closing.aborted) {
      try {
        const connection = await connect(options);
        said = false;
        // Closed while it was dialling.
        if (closing.aborted) await connection.close();
        else await this.#hold(connection);
      } catch (error) {
        if (!said) this.#log.warn({ code: codeOf(error) }, "NATS cannot be reached");
        said = true;
        this.#tried.resolve();
      }
      await pause(jitter(reconnectMs), closing).catch(() => {});
    }
  }

  /** Follows one connection until it is closed; the client itself reconnects it for ever. */
  async #hold(connection: NatsConnection): Promise<void> {
    const closed = connection.closed();
    let down = this.#begin(connection);
    const follow = async () => {
      for await (const status of connection.status()) {
        if (status.type === Events.Disconnect) {
          this.#log.warn({}, "NATS connection lost");
          this.#end(down);
        } else if (status.type === Events.Reconnect) {
          this.#log.info({}, "NATS connection is back");
          down = this.#begin(connection);
        }
      }
    };
    void follow();
    await abortable(closed, this.#closing.signal).catch(() => connection.close());
    this.#end(down);
  }

  #begin(connection: NatsConnection): AbortController {
    const down = new AbortController();
    const session = { connection, down: down.signal };
    this.#session = session;
    this.#onUp(session);
    this.#tried.resolve();
    this.#next.resolve(session);
    this.#next = Promise.withResolvers();
    return down;
  }

  #end(down: AbortController): void {
    if (down.signal.aborted) return;
    this.#session = undefined;
    down.abort(new Error("the connection to NATS was lost"));
  }
}

function connectionOptions({ url, name, pingIntervalMs = 5_000 }: NatsLinkConfig): ConnectionOptions {
  const urls = url.split(",").map(parseUrl);
  const [first] = urls;
  if (first === undefined) throw new TypeError(notAUrl);
  const user = decodeURIComponent(first.username);
  const pass = decodeURIComponent(first.password);
  return {
    servers: urls.map(({ hostname, port }) => `${hostname}:${port || 4222}`),
    name,
    timeout: dialTimeoutMs,
    pingInterval: pingIntervalMs,
    maxPingOut: 2,
    maxReconnectAttempts: -1,
    // A stack trace per request is a quarter of its cost.
    noAsyncTraces: true,
    // A wrong password may be put right on the server's side.
    ignoreAuthErrorAbort: true,
    reconnectDelayHandler: () => jitter(reconnectMs),
    ...(pass !== "" ? { user, pass } : user !== "" ? { token: user } : {}),
    ...(first.protocol === "tls:" ? { tls: {} } : {}),
  };
}

const notAUrl = "not a nats:// or tls:// URL";

function parseUrl(text: string): URL {
  // Not new URL(): its error carries its input.
  const url = URL.parse(text.trim());
  if (url === null || (url.protocol !== "nats:" && url.protocol !== "tls:")) throw new TypeError(notAUrl);
  return url;
}

function jitter(ms: number): number {
  return ms / 2 + Math.random() * (ms / 2);
}

/** What may be logged of a client's error: its code. Its message may name what it was given. */
export function codeOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" || typeof code === "number" ? String(code) : ErrorCode.Unknown;
}
