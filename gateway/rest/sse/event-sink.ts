import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import { cut, drained, type Exchange, isClosed } from "../../exchange.ts";
import { COMMON_HEADERS } from "../respond.ts";
import { HEARTBEAT } from "./frame.ts";

export interface SinkTimes {
  /** Silence after which a comment is sent, in milliseconds. */
  readonly heartbeatMs: number;
  /** How long the reader may read nothing, in milliseconds. */
  readonly stallMs: number;
}

/** The response of an event stream: headers, frames at the pace of the reader, heartbeats in between. */
export class EventSink {
  readonly #exchange: Exchange;
  readonly #times: SinkTimes;
  #heartbeat: NodeJS.Timeout | undefined;
  #isBlocked = false;

  constructor(exchange: Exchange, times: SinkTimes) {
    this.#exchange = exchange;
    this.#times = times;
  }

  get isOpen(): boolean {
    return this.#exchange.response.headersSent;
  }

  /** Sends the headers, so that the client knows that its stream was accepted. */
  open(headers: Readonly<Record<string, string>>): void {
    const { response } = this.#exchange;
    response.writeHead(200, {
      ...COMMON_HEADERS,
      "content-type": "text/event-stream; charset=utf-8",
      // nginx and others collect answers by default; this asks them not to.
      "x-accel-buffering": "no",
      ...headers,
    });
    response.flushHeaders();
    const beat = () => {
      if (!this.#isBlocked && !isClosed(this.#exchange)) response.write(HEARTBEAT);
      this.#heartbeat?.refresh();
    };
    this.#heartbeat = setTimeout(beat, this.#times.heartbeatMs);
    response.once("close", () => clearTimeout(this.#heartbeat));
  }

  /** Resolves when the reader can take more. Throws STREAM_SLOW_CONSUMER when it takes nothing for too long. */
  write(text: string): Promise<void> | undefined {
    if (text === "" || isClosed(this.#exchange)) return undefined;
    this.#heartbeat?.refresh();
    return this.#exchange.response.write(text) ? undefined : this.#drained();
  }

  async #drained(): Promise<void> {
    this.#isBlocked = true;
    const taken = await drained(this.#exchange.response, this.#times.stallMs);
    this.#isBlocked = false;
    if (taken || isClosed(this.#exchange)) return;
    cut(this.#exchange);
    throw new AppError({
      code: Code.ResourceExhausted,
      reason: "STREAM_SLOW_CONSUMER",
      message: "The reader of the stream is too slow.",
    });
  }

  end(): void {
    clearTimeout(this.#heartbeat);
    this.#exchange.response.end();
  }
}
