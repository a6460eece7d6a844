import { jittered } from "./breaker.ts";
import type { Carrier } from "./carrier.ts";

export interface EjectionOptions {
  /** Broken calls in a row after which a replica is left alone. */
  readonly failures: number;
  /** For how long; doubled every time until a call succeeds, to at most `maxMs`; ± 20 %. */
  readonly baseMs: number;
  readonly maxMs: number;
}

/** After Envoy's outlier detection; shorter, as a restarted replica should not stand idle for half a minute. */
export const EJECTION: EjectionOptions = { failures: 3, baseMs: 2_000, maxMs: 30_000 };

/** What an unused replica is thought to need; and the least, as differences below it are noise. */
const LEAST_LATENCY_MS = 5;
/** A latency is forgotten at this pace, so that a replica that was slow once is tried again. */
const LATENCY_TAU_MS = 10_000;
const SAMPLE_WEIGHT = 0.3;

/** One replica: its connection, its load and its health. */
export class Endpoint {
  readonly carrier: Carrier;
  readonly #ejection: EjectionOptions;
  #inFlight = 0;
  #latencyMs = LEAST_LATENCY_MS;
  #sampledAt: number | undefined;
  #failures = 0;
  #ejections = 0;
  #ejectedUntil = 0;
  #leaving = false;

  constructor(carrier: Carrier, ejection: EjectionOptions) {
    this.carrier = carrier;
    this.#ejection = ejection;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Whether it broke so often that it should be left alone; whether it is, depends on the others. */
  get failing(): boolean {
    return this.#failures >= this.#ejection.failures;
  }

  /** Whether it has left and its last call has ended. */
  get gone(): boolean {
    return this.#leaving && this.#inFlight === 0;
  }

  /** What one more call here costs: expected latency × calls in flight. */
  cost(now: number): number {
    return Math.max(LEAST_LATENCY_MS, this.#latency(now)) * (this.#inFlight + 1);
  }

  ejected(now: number): boolean {
    return now < this.#ejectedUntil;
  }

  begin(): void {
    this.#inFlight += 1;
  }

  end(): void {
    this.#inFlight -= 1;
    if (this.gone) this.carrier.close();
  }

  /** The replica answered, `latencyMs` after it was asked. */
  answered(latencyMs: number, now: number): void {
    // The first one says what a connection costs.
    if (this.#sampledAt === undefined) this.#sampledAt = now;
    else this.slow(latencyMs, now);
    this.#failures = 0;
    this.#ejections = 0;
    this.#ejectedUntil = 0;
  }

  /** It took at least this long. */
  slow(latencyMs: number, now: number): void {
    this.#latencyMs = this.#latency(now) * (1 - SAMPLE_WEIGHT) + latencyMs * SAMPLE_WEIGHT;
    this.#sampledAt = now;
  }

  /** The way to it broke. */
  broke(): void {
    this.#failures += 1;
  }

  eject(now: number): void {
    const { baseMs, maxMs, failures } = this.#ejection;
    this.#ejectedUntil = now + jittered(Math.min(maxMs, baseMs * 2 ** this.#ejections));
    this.#ejections += 1;
    // When it comes back it is on probation: one more broken call is enough.
    this.#failures = failures - 1;
  }

  readmit(): void {
    this.#ejectedUntil = 0;
  }

  /** Takes no more calls; its connection ends with the last one. */
  leave(): void {
    this.#leaving = true;
    if (this.gone) this.carrier.close();
  }

  #latency(now: number): number {
    return this.#latencyMs * Math.exp(((this.#sampledAt ?? now) - now) / LATENCY_TAU_MS);
  }
}
