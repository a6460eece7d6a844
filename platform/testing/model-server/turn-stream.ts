import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import type { StreamEvent } from "./message-events.ts";
import type { Turn } from "./turn.ts";

/** A turn in the words of one of the server's faces. */
export interface WireTurn {
  events: StreamEvent[];
  /** An error in the middle of the stream. */
  errorEvent(type: string, message: string): string;
}

/** Writes one turn as a stream: its pace, and what is to go wrong with it. */
export class TurnStream {
  readonly #response: ServerResponse;
  readonly #turn: Turn;
  readonly #wire: WireTurn;
  readonly #signal: AbortSignal;
  #written = 0;

  constructor(response: ServerResponse, turn: Turn, wire: WireTurn, signal: AbortSignal) {
    this.#response = response;
    this.#turn = turn;
    this.#wire = wire;
    this.#signal = signal;
  }

  /** Returns when the answer, or what the fault leaves of it, is written or the client is gone. */
  async send(): Promise<void> {
    const response = this.#response;
    const fault = this.#turn.fault ?? {};
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" });
    response.flushHeaders();
    const { events } = this.#wire;
    const whole = { text: events.map((event) => event.text).join(""), delta: false };
    for (const [i, part] of (this.#turn.together ? [whole] : events).entries()) {
      if (fault.insert?.afterEvents === i && !(await this.#write(fault.insert.raw))) return;
      if (fault.errorEvent?.afterEvents === i) {
        const { type, message } = fault.errorEvent;
        if (await this.#write(this.#wire.errorEvent(type, message))) response.end();
        return;
      }
      if (typeof fault.hang === "object" && fault.hang.afterEvents === i) return;
      if (part.delta && this.#turn.paceMs) await sleep(this.#turn.paceMs, undefined, { signal: this.#signal });
      else if (part.delta) await setImmediate();
      if (!(await this.#write(part.delta && this.#turn.stamped ? stamped(part.text) : part.text))) return;
    }
    response.end();
  }

  /** False when the stream is over, because it was cut here or because the client is gone. */
  async #write(text: string): Promise<boolean> {
    const response = this.#response;
    if (response.destroyed) return false;
    const bytes = Buffer.from(text);
    const cut = this.#turn.fault?.cut;
    const left = cut === undefined ? Number.POSITIVE_INFINITY : cut.afterBytes - this.#written;
    if (bytes.length > left || (left === 0 && cut !== undefined)) {
      await new Promise<void>((resolve) => {
        response.write(bytes.subarray(0, left), () => resolve());
        if (left === 0) resolve();
      });
      if (cut?.how === "end") response.end();
      else response.destroy();
      return false;
    }
    this.#written += bytes.length;
    if (!response.write(bytes)) await Promise.race([once(response, "drain"), once(response, "close")]);
    return !response.destroyed;
  }
}

/** The clock is the one that every process of this machine shares: process.hrtime. */
function stamped(event: string): string {
  return event.replace(/"(?:text|content)":"/, (field) => `${field}@${process.hrtime.bigint() / 1_000n}@`);
}
