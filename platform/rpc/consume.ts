/**
 * Reads a client stream and cancels the call when the reader stops early. Leaving a `for await` over a Connect client
 * stream does not cancel the RPC by itself: Connect's client iterators have no `return()`.
 *
 * @param call starts the stream with the given signal
 * @param parent aborts the call too
 */
export async function* consume<T>(
  call: (signal: AbortSignal) => AsyncIterable<T>,
  parent?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const controller = new AbortController();
  try {
    yield* call(parent === undefined ? controller.signal : AbortSignal.any([parent, controller.signal]));
  } finally {
    controller.abort();
  }
}
