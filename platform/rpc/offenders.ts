import { Allowance } from "./allowance.ts";
import { networkOf } from "./network.ts";

export interface OffenderLimits {
  /** Connections of one address that may be cut for abuse before the next ones are refused. */
  readonly offenceBurst: number;
  /** How many of them are forgiven per minute. */
  readonly offencesForgivenPerMinute: number;
}

/** Most addresses that are remembered; those that were cut longest ago are forgotten first. */
const MAX_ADDRESSES = 10_000;

/**
 * Addresses whose connections were cut for abuse. Cutting alone is no end of it: who is cut comes back at once, and each
 * connection has its budgets anew. So who keeps coming back is not let in for a while; that costs one look into a map.
 */
export class Offenders {
  readonly #limits: OffenderLimits;
  readonly #forgiving = new Map<string, Allowance>();

  constructor(limits: OffenderLimits) {
    this.#limits = limits;
  }

  /** Whether a new connection from there is refused. */
  refused(address: string): boolean {
    if (this.#forgiving.size === 0) return false;
    const network = networkOf(address);
    const allowance = this.#forgiving.get(network);
    if (allowance?.full === true) this.#forgiving.delete(network);
    return allowance?.open === false;
  }

  /** A connection from there was cut. */
  offended(address: string): void {
    const network = networkOf(address);
    const { offenceBurst, offencesForgivenPerMinute } = this.#limits;
    const allowance = this.#forgiving.get(network) ?? new Allowance(offenceBurst, offencesForgivenPerMinute / 60);
    allowance.take();
    this.#forgiving.delete(network);
    this.#forgiving.set(network, allowance);
    if (this.#forgiving.size <= MAX_ADDRESSES) return;
    const [oldest] = this.#forgiving.keys();
    if (oldest !== undefined) this.#forgiving.delete(oldest);
  }
}
