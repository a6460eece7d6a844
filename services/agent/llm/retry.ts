import type { ChatModel, ModelEvent, RetryEvent, StreamOptions } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";

export interface RetryOptions {
  /** Attempts in all. Default 5. */
  maxAttempts?: number;
  /** Wait before the second attempt; each further one doubles it. Default 1 000. */
  baseDelayMs?: number;
  /** Longest wait, also when the provider asks for more. Default 60 000. */
  maxDelayMs?: number;
  /** 0 ≤ r < 1; a wait is lengthened by up to a tenth of itself so that callers part company. */
  random?: () => number;
  /** Waits, and rejects with the signal's reason when it fires. */
  sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/**
 * The one retry layer for models: about 1, 2, 4, 8 s, or what the provider's Retry-After says up to the cap. Only errors
 * that say they are retryable are retried. A call of which output was already handed on is asked again only when the
 * caller allows it (`mayDiscard`), after a `discard` event. Each retry is a `retry` event before its wait.
 *
 * Deltas pass through without a generator of their own: one promise each, nothing else.
 */
export function withRetry(model: ChatModel, options: RetryOptions = {}): ChatModel {
  const policy: Required<RetryOptions> = {
    maxAttempts: options.maxAttempts ?? 5,
    baseDelayMs: options.baseDelayMs ?? 1_000,
    maxDelayMs: options.maxDelayMs ?? 60_000,
    random: options.random ?? Math.random,
    sleep: options.sleep ?? abortableSleep,
  };
  return {
    provider: model.provider,
    stream: (request, streamOptions) => ({
      [Symbol.asyncIterator]: () => {
        const open = () => model.stream(request, streamOptions)[Symbol.asyncIterator]();
        return new RetryingStream(open, streamOptions, policy);
      },
    }),
  };
}

/** How long to wait before attempt `attempt` (from 2); undefined: do not try. */
export function retryDelay(error: unknown, attempt: number, policy: Required<RetryOptions>): number | undefined {
  if (!(error instanceof ModelError) || !error.retryable || attempt > policy.maxAttempts) return undefined;
  const wanted = error.retryAfterMs ?? policy.baseDelayMs * 2 ** (attempt - 2);
  return Math.min(policy.maxDelayMs, Math.round(wanted * (1 + 0.1 * policy.random())));
}

class RetryingStream implements AsyncIterator<ModelEvent> {
  readonly #open: () => AsyncIterator<ModelEvent>;
  readonly #options: StreamOptions;
  readonly #policy: Required<RetryOptions>;
  #inner: AsyncIterator<ModelEvent>;
  #attempt = 1;
  #shown = false;
  /** The retry that is decided on and not yet waited for. */
  #retry: RetryEvent | undefined;
  #announced = false;

  constructor(open: () => AsyncIterator<ModelEvent>, options: StreamOptions, policy: Required<RetryOptions>) {
    this.#open = open;
    this.#options = options;
    this.#policy = policy;
    this.#inner = open();
  }

  next(): Promise<IteratorResult<ModelEvent>> {
    return this.#retry === undefined ? this.#inner.next().then(this.#pass, this.#recover) : this.#resume(this.#retry);
  }

  async return(): Promise<IteratorResult<ModelEvent>> {
    await this.#inner.return?.();
    return { done: true, value: undefined };
  }

  readonly #pass = (result: IteratorResult<ModelEvent>): IteratorResult<ModelEvent> => {
    if (!this.#shown && !result.done && isOutput(result.value)) this.#shown = true;
    return result;
  };

  readonly #recover = (error: unknown): IteratorResult<ModelEvent> => {
    this.#options.signal.throwIfAborted();
    const attempt = this.#attempt + 1;
    const delayMs = retryDelay(error, attempt, this.#policy);
    if (delayMs === undefined || (this.#shown && !this.#options.mayDiscard)) throw error;
    this.#retry = { type: "retry", attempt, delayMs, kind: (error as ModelError).kind };
    this.#announced = !this.#shown;
    return this.#shown ? { done: false, value: { type: "discard" } } : this.#announce(this.#retry);
  };

  #announce(retry: RetryEvent): IteratorResult<ModelEvent> {
    this.#options.onRetry?.(retry);
    return { done: false, value: retry };
  }

  async #resume(retry: RetryEvent): Promise<IteratorResult<ModelEvent>> {
    if (!this.#announced) {
      this.#announced = true;
      return this.#announce(retry);
    }
    await this.#policy.sleep(retry.delayMs, this.#options.signal);
    this.#options.signal.throwIfAborted();
    this.#retry = undefined;
    this.#attempt = retry.attempt;
    this.#shown = false;
    this.#inner = this.#open();
    return this.next();
  }
}

function isOutput(event: ModelEvent): boolean {
  return event.type !== "usage" && event.type !== "notice" && event.type !== "retry";
}

/** A timer that the signal ends. */
export async function abortableSleep(ms: number, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
