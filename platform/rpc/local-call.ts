import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, createContextValues, type HandlerContext } from "@connectrpc/connect";
import { receivedError } from "./received-error.ts";

/** Why the signal of a call aborts that has ended; made once, as its stack would cost as much as a message. */
const OVER = new DOMException("This call is over", "AbortError");

/**
 * One call inside this process: the handler's context, and what may end it. The handler's signal aborts when the caller
 * leaves, the deadline passes, the door shuts down, or the call is over; one signal where two ends of a socket have
 * several.
 */
export class LocalCall {
  readonly context: HandlerContext;
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #live: Set<LocalCall>;
  readonly #waiting = new Set<(left: ConnectError) => void>();
  #timer: NodeJS.Timeout | undefined;
  #left: ConnectError | undefined;
  #isOver = false;

  /**
   * @param live the calls that are not over; this one is among them until it is
   * @param header made for this call: the handler gets it as it is
   */
  constructor(
    method: DescMethod,
    live: Set<LocalCall>,
    caller: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: Headers,
  ) {
    const deadline = timeoutMs === undefined ? undefined : Date.now() + timeoutMs;
    this.context = {
      method,
      service: method.parent,
      signal: this.#controller.signal,
      timeoutMs: () => (deadline === undefined ? undefined : deadline - Date.now()),
      requestMethod: "POST",
      requestHeader: header,
      responseHeader: new Headers(),
      responseTrailer: new Headers(),
      protocolName: "connect",
      values: createContextValues(),
      url: `https://in-memory/${method.parent.typeName}/${method.name}`,
    };
    this.#caller = caller;
    this.#live = live;
    live.add(this);
    const late = () => this.leave(new ConnectError("the operation timed out", Code.DeadlineExceeded));
    if (caller?.aborted) this.leave(caller.reason);
    else if (timeoutMs !== undefined && timeoutMs <= 0) late();
    else {
      caller?.addEventListener("abort", this.#onAbort);
      if (timeoutMs !== undefined) this.#timer = setTimeout(late, timeoutMs);
    }
  }

  /** What the caller is told, once it has left or its deadline has passed: at once, whatever the handler does. */
  get left(): ConnectError | undefined {
    return this.#left;
  }

  /** Calls back when the caller leaves, until the returned function is called. */
  onLeft(callback: (left: ConnectError) => void): () => void {
    if (this.#left !== undefined) callback(this.#left);
    this.#waiting.add(callback);
    return () => void this.#waiting.delete(callback);
  }

  /** The caller is gone, or waits no longer. */
  leave(reason: unknown): void {
    if (this.#isOver || this.#left !== undefined) return;
    this.#left = ConnectError.from(reason);
    this.#release();
    this.#controller.abort(reason);
    for (const callback of this.#waiting) callback(this.#left);
    this.#waiting.clear();
  }

  /** The door shuts down: the handler is told, and the caller learns of it from what the handler says. */
  shutDown(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** The handler is done. */
  end(reason: unknown = OVER): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#release();
    this.#controller.abort(reason);
  }

  /** The handler, or the library around it, failed: what its caller gets. */
  fail(error: unknown): ConnectError {
    // First, as the observer may complete the error when the signal aborts with it.
    this.end(error);
    return receivedError(error, this.context.responseHeader);
  }

  #release(): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener("abort", this.#onAbort);
    this.#live.delete(this);
  }

  readonly #onAbort = () => this.leave(this.#caller?.reason);
}
