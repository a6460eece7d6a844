import type { Breakers, Verdict } from "./breaker.ts";
import type { CallLimits, Place } from "./call-limits.ts";
import type { ChatModel, ModelEvent, ModelRequest, StreamOptions } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";
import { platformCredentialId } from "./platform-credential.ts";

/** What a call has to pass before it is made; what is not given lets everything through. */
export interface Guards {
  breakers?: Breakers;
  limits?: CallLimits;
}

/**
 * A model whose attempts wait for a place of their provider and credential, and then pass the breaker of their model. Of
 * failures only the provider's faults count against it: overload, 5xx, timeouts, broken connections and streams; not what
 * the request or the credential is refused for, nor cancels. One layer for both: each costs a promise per delta.
 */
export function withGuards(model: ChatModel, guards: Guards): ChatModel {
  return {
    provider: model.provider,
    stream: (request, options) => ({
      [Symbol.asyncIterator]: () => new GuardedStream(model, guards, request, options),
    }),
  };
}

class GuardedStream implements AsyncIterator<ModelEvent> {
  readonly #model: ChatModel;
  readonly #guards: Guards;
  readonly #request: ModelRequest;
  readonly #options: StreamOptions;
  #inner: AsyncIterator<ModelEvent> | undefined;
  #place: Place | undefined;
  #verdict: ((verdict: Verdict) => void) | undefined;

  constructor(model: ChatModel, guards: Guards, request: ModelRequest, options: StreamOptions) {
    this.#model = model;
    this.#guards = guards;
    this.#request = request;
    this.#options = options;
  }

  next(): Promise<IteratorResult<ModelEvent>> {
    return this.#inner === undefined ? this.#begin() : this.#inner.next().then(this.#pass, this.#fail);
  }

  async return(): Promise<IteratorResult<ModelEvent>> {
    this.#settle("unknown");
    await this.#inner?.return?.();
    return { done: true, value: undefined };
  }

  async #begin(): Promise<IteratorResult<ModelEvent>> {
    const { signal, credential } = this.#options;
    const { breakers, limits } = this.#guards;
    const { provider } = this.#model;
    const credentialId = credential?.id ?? platformCredentialId;
    signal.throwIfAborted();
    // First the place: who waits for one must not take up one of the few probes of a half open breaker.
    this.#place = await limits?.enter({ provider, credentialId }, signal);
    try {
      signal.throwIfAborted();
      this.#verdict = breakers?.enter({ provider, model: this.#request.model, credentialId });
      this.#inner = this.#model.stream(this.#request, this.#options)[Symbol.asyncIterator]();
    } catch (error) {
      this.#settle("unknown");
      throw error;
    }
    return this.#inner.next().then(this.#pass, this.#fail);
  }

  #settle(verdict: Verdict): void {
    this.#verdict?.(verdict);
    this.#place?.leave();
  }

  readonly #pass = (result: IteratorResult<ModelEvent>): IteratorResult<ModelEvent> => {
    if (result.done) this.#settle("unknown");
    else if (result.value.type === "finish") this.#settle("succeeded");
    return result;
  };

  readonly #fail = (error: unknown): never => {
    if (error instanceof ModelError && error.kind === "rate_limited" && error.retryAfterMs !== undefined) {
      this.#place?.pause(error.retryAfterMs);
    }
    this.#settle(isFault(error) ? "failed" : "unknown");
    throw error;
  };
}

const faults = new Set(["overloaded", "server", "timeout", "connection", "malformed_stream"]);

/** Whether an error says something of the provider's health. */
function isFault(error: unknown): boolean {
  if (!(error instanceof ModelError) || !faults.has(error.kind)) return false;
  return error.status === undefined || error.status >= 500 || error.status === 408;
}
