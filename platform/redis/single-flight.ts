import { abortable } from "../abortable.ts";

/**
 * Calls with the same key at the same time share one load. A caller who leaves does not disturb the others; when the last
 * one has left, the load's signal aborts and the next caller begins a new one. Nothing is kept: a load that has ended,
 * well or not, is forgotten.
 */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();

  /** Loads that are under way. */
  get size(): number {
    return this.#flights.size;
  }

  /** The load's outcome, or the reason of `signal`. `load` runs in the first caller's async context. */
  async run(key: string, load: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#begin(key, load);
    flight.callers += 1;
    try {
      return await abortable(flight.result, signal);
    } finally {
      flight.callers -= 1;
      if (flight.callers === 0 && this.#flights.get(key) === flight) {
        this.#end(key, flight);
        flight.abort.abort(new Error("nobody waits for this load any more"));
      }
    }
  }

  #begin(key: string, load: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const abort = new AbortController();
    const result = (async () => load(abort.signal))();
    const flight: Flight<T> = { result, abort, callers: 0 };
    this.#flights.set(key, flight);
    const end = () => this.#end(key, flight);
    result.then(end, end);
    return flight;
  }

  #end(key: string, flight: Flight<T>): void {
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
  }
}

interface Flight<T> {
  result: Promise<T>;
  abort: AbortController;
  callers: number;
}
