import { Readable } from "node:stream";

/** How much of an unread body is taken off the socket, and for how long, so that the connection can serve again. */
const drainBytes = 64 * 1024;
const drainMs = 1_000;

/**
 * A response body as it comes off the socket: an async iterable of byte chunks, readable once.
 * Everything that arrived since the last read is one chunk, so a slow reader gets few large ones.
 *
 * This is the part of a WHATWG `ReadableStream` that clients read bodies through. The queues and promises of a real web
 * stream cost more than the rest of a request, so one is made only when {@link getReader} or {@link tee} asks for it.
 */
export class ByteStream implements AsyncIterableIterator<Uint8Array> {
  readonly #source: Readable;
  #waiting: { resolve(result: IteratorResult<Uint8Array>): void; reject(error: unknown): void } | undefined;
  #started = false;
  #done = false;
  #left: number;

  /** A body of more than `maxBytes` ends in an error with code `BODY_TOO_LARGE` and costs its connection. */
  constructor(source: Readable, maxBytes: number = Number.POSITIVE_INFINITY) {
    this.#source = source;
    this.#left = maxBytes;
  }

  /** Whether reading has begun. */
  get used(): boolean {
    return this.#started;
  }

  /** Whether a reader holds the stream. */
  get locked(): boolean {
    return this.#started;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next chunk. Rejects with the reason of the abort, the idle timeout or the broken connection. */
  next(): Promise<IteratorResult<Uint8Array>> {
    if (!this.#started) this.#start();
    try {
      const result = this.#take();
      if (result !== undefined) return Promise.resolve(result);
    } catch (error) {
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  /**
   * Gives the body up. What is already on its way is read for a moment, so that a body that was all but over leaves its
   * connection usable; a longer one costs its connection.
   */
  return(): Promise<IteratorResult<Uint8Array>> {
    this.#started = true;
    this.#done = true;
    this.#wake();
    drain(this.#source);
    return Promise.resolve({ done: true, value: undefined });
  }

  /** As {@link return}; the name that web streams use. */
  async cancel(): Promise<void> {
    await this.return();
  }

  /** A reader of a real web stream over what is left. */
  getReader(): ReadableStreamDefaultReader<Uint8Array> {
    return this.#web().getReader();
  }

  /** Two real web streams over what is left. */
  tee(): [ReadableStream<Uint8Array>, ReadableStream<Uint8Array>] {
    return this.#web().tee();
  }

  #web(): ReadableStream<Uint8Array> {
    if (this.#started) throw new TypeError("the body is already being read");
    this.#started = true;
    return Readable.toWeb(this.#source) as ReadableStream<Uint8Array>;
  }

  #start(): void {
    this.#started = true;
    const wake = () => this.#wake();
    this.#source.on("readable", wake).on("end", wake).on("close", wake).on("error", wake);
  }

  /** What can be had without waiting; undefined when nothing can. */
  #take(): IteratorResult<Uint8Array> | undefined {
    if (this.#done) return { done: true, value: undefined };
    const chunk = this.#source.read() as Uint8Array | null;
    if (chunk !== null) {
      this.#left -= chunk.length;
      if (this.#left >= 0) return { done: false, value: chunk };
      this.#done = true;
      this.#source.on("error", () => {}).destroy();
      throw Object.assign(new TypeError("the body is too large"), { code: "BODY_TOO_LARGE" });
    }
    if (!this.#source.errored && !this.#source.readableEnded && !this.#source.destroyed) return undefined;
    this.#done = true;
    if (this.#source.errored) throw this.#source.errored;
    return { done: true, value: undefined };
  }

  #wake(): void {
    const waiting = this.#waiting;
    if (waiting === undefined) return;
    try {
      const result = this.#take();
      if (result === undefined) return;
      this.#waiting = undefined;
      waiting.resolve(result);
    } catch (error) {
      this.#waiting = undefined;
      waiting.reject(error);
    }
  }
}

function drain(source: Readable): void {
  if (source.destroyed || source.readableEnded) return;
  let left = drainBytes;
  const timer = setTimeout(() => source.destroy(), drainMs);
  timer.unref();
  source.on("error", () => {}).on("close", () => clearTimeout(timer));
  source.on("readable", () => {
    for (let chunk = source.read(); chunk !== null; chunk = source.read()) {
      left -= (chunk as Uint8Array).length;
      if (left < 0) source.destroy();
    }
  });
}
