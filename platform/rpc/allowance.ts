/** A token bucket: so many at once, and so many more per second. */
export class Allowance {
  readonly #burst: number;
  readonly #rate: number;
  #left: number;
  #at = performance.now();

  constructor(burst: number, rate: number) {
    this.#burst = burst;
    this.#rate = rate;
    this.#left = burst;
  }

  /** Whether one could be taken now. */
  get open(): boolean {
    this.#refill();
    return this.#left >= 1;
  }

  /** Whether nothing is missing. */
  get full(): boolean {
    this.#refill();
    return this.#left >= this.#burst;
  }

  /** False when there is none left. */
  take(): boolean {
    this.#refill();
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }

  #refill(): void {
    const now = performance.now();
    this.#left = Math.min(this.#burst, this.#left + ((now - this.#at) / 1000) * this.#rate);
    this.#at = now;
  }
}
