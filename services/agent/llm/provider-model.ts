import type { ChatModel, ModelCredential, ModelEvent, ModelRequest, StreamOptions } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";

/** Most characters of one server-sent event. */
export const maxEventLength = 8 * 1024 * 1024;
/** Most bytes of one answer; 128 000 tokens at 300 bytes of framing each are 38 MB. */
const maxAnswerBytes = 128 * 1024 * 1024;

/** Turns the text of an answer's stream into model events. After a failure nothing more comes. */
export interface StreamDecoder {
  /** Set when the stream cannot go on. */
  readonly failure: ModelError | undefined;
  /** Whether the answer is whole: `finish` was given. */
  readonly complete: boolean;
  /** The events that this piece of the stream completes. */
  feed(text: string): ModelEvent[];
  /** The body is over: the events that this completes, when the answer is whole without a word that says so. */
  end(): ModelEvent[];
  /** The error of a stream that ended here. */
  cutOff(): ModelError;
}

/** What one provider does otherwise than another. */
export interface ProviderPort {
  /** Provider as it appears in usage and events. */
  readonly provider: string;
  /** Sends the request; resolves when the headers of a 2xx response are there. */
  open(request: ModelRequest, credential: ModelCredential | undefined, signal: AbortSignal): Promise<Response>;
  /** A decoder for one answer. */
  decoder(): StreamDecoder;
  /** What is to be said of a request before it is sent. */
  notices(request: ModelRequest): ModelEvent[];
  /** Any failure of {@link open} or of the body. */
  toModelError(error: unknown): ModelError;
}

/**
 * A model whose SDK makes the request (types, credentials, error classes) and whose stream is read here, because an SDK's own
 * reader costs as much again as everything else. It makes one attempt: retries are another layer.
 */
export function createProviderModel(port: ProviderPort): ChatModel {
  async function* stream(request: ModelRequest, { signal, credential }: StreamOptions): AsyncGenerator<ModelEvent> {
    signal.throwIfAborted();
    yield* port.notices(request);
    // SDKs leave their listener on the signal they are given, so each call gives them one of its own.
    const call = new AbortController();
    const abort = () => call.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    const decoder = port.decoder();
    try {
      const response = await port.open(request, credential, call.signal);
      if (response.body === null) throw decoder.cutOff();
      const chunks = (response.body as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]();
      const utf8 = new TextDecoder();
      let left = maxAnswerBytes;
      while (!decoder.complete) {
        const { done, value } = await chunks.next();
        const events = decoder.feed(done ? utf8.decode() : utf8.decode(value, { stream: true }));
        for (const event of events) yield event;
        if (done && !decoder.complete && decoder.failure === undefined) yield* decoder.end();
        if (decoder.failure !== undefined) throw decoder.failure;
        if (done && !decoder.complete) throw decoder.cutOff();
        left -= value?.length ?? 0;
        if (left < 0) throw new ModelError("malformed_stream", { retryable: false, detail: "the answer is too large" });
      }
      // The last bytes of the body are still under way; taking them keeps the connection.
      await chunks.return?.();
    } catch (error) {
      signal.throwIfAborted();
      throw port.toModelError(error);
    } finally {
      signal.removeEventListener("abort", abort);
      if (!decoder.complete) call.abort();
    }
  }

  return { provider: port.provider, stream };
}

/** A key that cannot stand in a header would be quoted by the error of whoever tries. */
export function sendable(apiKey: string): string {
  if (/^[\x21-\x7e]+$/.test(apiKey)) return apiKey;
  throw new ModelError("authentication", { retryable: false, detail: "the API key has characters that no key has" });
}

/** A setting that the model refuses was left out. */
export function temperatureIgnored(model: string): ModelEvent {
  return {
    type: "notice",
    reason: "TEMPERATURE_IGNORED",
    message: `The model ${model} takes no temperature; the setting was left out.`,
    facts: { model },
  };
}
