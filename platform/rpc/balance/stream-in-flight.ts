import type { Endpoint } from "./endpoint.ts";

/** A stream that a replica has begun to answer. */
export interface OpenStream<T> {
  readonly messages: AsyncIterable<T>;
  readonly endpoint: Endpoint;
}

/**
 * The messages of a stream. Its replica has the call in flight until they end, fail, or the caller leaves. A failure
 * before the first message goes to `reopen`, which answers the stream to go on with, or undefined when it is final;
 * later ones go to `failed`.
 */
export function inFlight<T>(
  opened: OpenStream<T>,
  signal: AbortSignal | undefined,
  reopen: (error: unknown, endpoint: Endpoint) => Promise<OpenStream<T> | undefined>,
  failed: (error: unknown, endpoint: Endpoint) => void,
): AsyncIterable<T> {
  let { messages, endpoint } = opened;
  let counted = true;
  let begun = false;
  const end = () => {
    if (!counted) return;
    counted = false;
    signal?.removeEventListener("abort", end);
    endpoint.end();
  };
  const watch = () => {
    counted = true;
    if (signal?.aborted) end();
    else signal?.addEventListener("abort", end, { once: true });
  };
  watch();
  return {
    [Symbol.asyncIterator]() {
      let inner = messages[Symbol.asyncIterator]();
      const passed = (result: IteratorResult<T>): IteratorResult<T> => {
        begun = true;
        if (result.done === true) end();
        return result;
      };
      const broke = async (error: unknown): Promise<IteratorResult<T>> => {
        end();
        if (begun) {
          failed(error, endpoint);
          throw error;
        }
        const next = await reopen(error, endpoint);
        if (next === undefined) throw error;
        ({ messages, endpoint } = next);
        watch();
        inner = messages[Symbol.asyncIterator]();
        return inner.next().then(passed, broke);
      };
      return {
        next: () => inner.next().then(passed, broke),
        async return(value) {
          end();
          return (await inner.return?.(value)) ?? { done: true, value };
        },
      };
    },
  };
}
