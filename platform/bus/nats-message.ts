import { headers, type Msg, type MsgHdrs, nanos } from "nats";
import type { BusMessage, Publication } from "./bus.ts";

const idHeader = "Nats-Msg-Id";
const encoder = new TextEncoder();

/** The headers of a publication as NATS carries them; the id is added by `publish`. */
export function toHeaders(publication: Publication): MsgHdrs {
  const carried = headers();
  for (const [name, value] of Object.entries(publication.headers ?? {})) carried.set(name, value);
  return carried;
}

/** A message as the bus hands it out; `subject` is the one without the mesh's prefix. */
export function fromMsg(message: Msg, subject: string, attempt: number): BusMessage {
  const carried: Record<string, string> = {};
  for (const [name, values] of message.headers ?? []) {
    if (!name.startsWith("Nats-") && values[0] !== undefined) carried[name] = values[0];
  }
  return { subject, id: message.headers?.get(idHeader) ?? "", data: message.data, headers: carried, attempt };
}

/** What the reply subject of a delivery says of it. */
export interface Delivery {
  /** The JetStream consumer's name. */
  consumer: string;
  /** How often the message has been delivered, this time included. */
  attempt: number;
}

/**
 * Reads a reply subject: `$JS.ACK.<stream>.<consumer>.<delivered>.<…>` with 9 tokens, or with `<domain>.<account>` before
 * the stream, 11 tokens or more, on servers since 2.10 (NATS ADR-15). Undefined when the message is not a delivery.
 */
export function deliveryOf(reply: string | undefined): Delivery | undefined {
  const tokens = reply?.split(".") ?? [];
  if (tokens[0] !== "$JS" || tokens[1] !== "ACK" || tokens.length < 9) return undefined;
  const [consumer, delivered] = tokens.length >= 11 ? tokens.slice(5, 7) : tokens.slice(3, 5);
  const attempt = Number(delivered);
  if (consumer === undefined || !Number.isInteger(attempt) || attempt < 1) return undefined;
  return { consumer, attempt };
}

/** The answers to a delivery that JetStream understands (NATS ADR-15). TERM has the server tell its operators. */
export const answers = {
  done: encoder.encode("+ACK"),
  poison: encoder.encode("+TERM"),
  working: encoder.encode("+WPI"),
  again: (inMs: number) => encoder.encode(inMs > 0 ? `-NAK {"delay":${nanos(inMs)}}` : "-NAK"),
} as const;
