import { create, type DescMessage, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { copyMessage } from "./copy-message.ts";
import type { LocalCall } from "./local-call.ts";

/** What a handler yields: a message, or what `create` makes one of. */
type Made = Message | object;

const DONE: IteratorResult<never> = { done: true, value: undefined };

/** A request as its handler gets it: through the codec, so that callers can do no more than over a socket. */
export function received(schema: DescMessage, bytes: Uint8Array, maxBytes: number): Message {
  if (bytes.length > maxBytes) throw tooLarge(bytes.length, "readMaxBytes", maxBytes);
  return fromBinary(schema, bytes);
}

/** A message of an answer as its caller gets it: a copy, since handlers answer with what they keep. */
export function answered(schema: DescMessage, made: Made, maxBytes: number): Message {
  const { copy, bytesAtMost } = copyMessage(create(schema, made as never));
  if (bytesAtMost > maxBytes) {
    const size = toBinary(schema, copy).length;
    if (size > maxBytes) throw tooLarge(size, "writeMaxBytes", maxBytes);
  }
  return copy;
}

/** The bytes of a message, or of what `create` makes one of. */
export function encoded(schema: DescMessage, message: Made): Uint8Array {
  return toBinary(schema, create(schema, message as never));
}

function tooLarge(size: number, limit: string, maxBytes: number): ConnectError {
  return new ConnectError(
    `message size ${size} is larger than configured ${limit} ${maxBytes}`,
    Code.ResourceExhausted,
  );
}

/**
 * The answer of a streaming call as its caller reads it. The handler is asked for a message when its reader asks, and
 * once before, so that it never runs ahead; a reader that stops says so with the call's signal, as over a socket.
 */
export class LocalMessages implements AsyncIterator<Message> {
  readonly #call: LocalCall;
  readonly #schema: DescMessage;
  readonly #maxBytes: number;
  #inner: AsyncIterator<Made> | undefined;
  #first: Promise<IteratorResult<Message>> | undefined;
  #isDone = false;

  constructor(call: LocalCall, schema: DescMessage, maxBytes: number) {
    this.#call = call;
    this.#schema = schema;
    this.#maxBytes = maxBytes;
  }

  /** Resolves when the first message, the end or an error is there to be read: until then headers may be added. */
  async begin(answer: () => Promise<AsyncIterable<Made>>): Promise<void> {
    this.#first = this.#ask(async () => {
      this.#inner = (await answer())[Symbol.asyncIterator]();
      return this.#inner.next();
    });
    await this.#first.catch(() => {});
  }

  next(): Promise<IteratorResult<Message>> {
    if (this.#call.left !== undefined) return Promise.reject(this.#call.left);
    const [first, inner] = [this.#first, this.#inner];
    this.#first = undefined;
    if (first !== undefined) return first;
    return this.#isDone || inner === undefined ? Promise.resolve(DONE) : this.#ask(() => inner.next());
  }

  /** One promise per message; it does not wait for the handler when the caller has left. */
  #ask(step: () => Promise<IteratorResult<Made>>): Promise<IteratorResult<Message>> {
    const call = this.#call;
    return new Promise((resolve, reject) => {
      const leave = call.onLeft(reject);
      const fail = (error: unknown) => {
        leave();
        this.#isDone = true;
        reject(call.fail(error));
      };
      step().then((result) => {
        if (result.done === true) {
          leave();
          this.#isDone = true;
          call.end();
          return resolve(DONE);
        }
        try {
          const value = answered(this.#schema, result.value, this.#maxBytes);
          leave();
          resolve({ done: false, value });
        } catch (error) {
          fail(error);
        }
      }, fail);
    });
  }
}

/**
 * The messages of a caller as its handler reads them. They end with the call: a handler does not wait for a caller that
 * has left, and the caller's generator is returned when the call is over. A caller whose messages fail has left.
 */
export function requestsOf(
  call: LocalCall,
  schema: DescMessage,
  input: AsyncIterable<Made>,
  maxBytes: number,
): AsyncIterable<Message> {
  const { signal } = call.context;
  const iterator = input[Symbol.asyncIterator]();
  // Not waited for, and not asked how it went: nobody reads it any more.
  signal.addEventListener("abort", () => void iterator.return?.()?.catch(() => {}), { once: true });
  const next = () =>
    new Promise<IteratorResult<Message>>((resolve, reject) => {
      const leave = call.onLeft(() => reject(signal.reason));
      iterator.next().then(
        (result) => {
          leave();
          if (result.done === true) return resolve(DONE);
          try {
            resolve({ done: false, value: received(schema, encoded(schema, result.value), maxBytes) });
          } catch (error) {
            reject(error);
          }
        },
        (error: unknown) => call.leave(error),
      );
    });
  return { [Symbol.asyncIterator]: () => ({ next }) };
}
