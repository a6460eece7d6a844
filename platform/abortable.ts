/**
 * The promise's outcome, or a rejection with the reason of the first signal that aborts. The promise itself goes on;
 * what it rejects with later is dropped.
 */
export function abortable<T>(promise: Promise<T>, ...signals: (AbortSignal | undefined)[]): Promise<T> {
  const { promise: outcome, resolve, reject } = Promise.withResolvers<T>();
  const cleanups: (() => void)[] = [];
  const settle = (act: () => void) => {
    for (const clean of cleanups) clean();
    act();
  };
  for (const signal of signals) {
    if (signal === undefined) continue;
    const abort = () => settle(() => reject(signal.reason));
    if (signal.aborted) abort();
    // AbortSignal.any() would keep a composite per call for as long as the connection's signal lives.
    signal.addEventListener("abort", abort, { once: true });
    cleanups.push(() => signal.removeEventListener("abort", abort));
  }
  promise.then(
    (value) => settle(() => resolve(value)),
    (error: unknown) => settle(() => reject(error)),
  );
  return outcome;
}

/** Waits, or rejects with the signal's reason. */
export function pause(ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const passed = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  return abortable(passed, ...signals).finally(() => clearTimeout(timer));
}

/** Rejects with the error that `late` makes when the promise has not settled after `ms`. */
export function within<T>(promise: Promise<T>, ms: number, late: () => Error): Promise<T> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(late()), ms);
  return abortable(promise, timeout.signal).finally(() => clearTimeout(timer));
}
