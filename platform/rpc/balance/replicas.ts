import { type Carrier, openCarrier } from "./carrier.ts";
import { EJECTION, type EjectionOptions, Endpoint } from "./endpoint.ts";
import { pickOfTwo } from "./pick.ts";
import { type Place, placesOf, type Resolve, type Target } from "./targets.ts";

/** DNS is asked again when an answer is older than this and a call is made. */
const REFRESH_MS = 5_000;
/** It is asked this long after a call broke. */
const SOON_MS = 500;
/** An answer older than this is not used: the call waits for a new one. */
const STALE_MS = 60_000;

export interface ReplicasOptions {
  readonly ejection?: Partial<EjectionOptions>;
  readonly resolve?: Resolve;
  readonly refreshMs?: number;
  readonly open?: (place: Place) => Carrier;
}

/** The replicas of one module: who they are, which of them is to be asked, and who is left alone for a while. */
export class Replicas {
  readonly #targets: readonly Target[];
  readonly #options: ReplicasOptions;
  readonly #endpoints = new Map<string, Endpoint>();
  /** All that were opened and may hold a connection, also those that DNS no longer names. */
  readonly #opened = new Set<Endpoint>();
  readonly #refreshMs: number;
  #resolvedAt = Number.NEGATIVE_INFINITY;
  #resolving: Promise<void> | undefined;
  #closed = false;

  constructor(targets: readonly Target[], options: ReplicasOptions = {}) {
    this.#targets = targets;
    this.#options = options;
    this.#refreshMs = options.refreshMs ?? REFRESH_MS;
    if (targets.every(({ name }) => name === undefined)) {
      this.#adopt(targets.map(({ baseUrl }) => ({ baseUrl, ip: undefined })));
      this.#resolvedAt = Number.POSITIVE_INFINITY;
    }
  }

  get endpoints(): readonly Endpoint[] {
    return [...this.#endpoints.values()];
  }

  /** Something to wait for before {@link pick}, or undefined; never rejects. Asks DNS when its answer is old. */
  fresh(now: number): Promise<void> | undefined {
    const age = now - this.#resolvedAt;
    if (age > this.#refreshMs) this.#refresh();
    return age > STALE_MS ? this.#resolving : undefined;
  }

  /** The replica for a call, other than those it has tried; undefined when there is no other. */
  pick(tried: readonly Endpoint[], now: number): Endpoint | undefined {
    const open = this.endpoints.filter((one) => !tried.includes(one));
    const well = open.filter((one) => !one.ejected(now));
    const candidates = well.length > 0 ? well : tried.length > 0 ? [] : open;
    return pickOfTwo(candidates, (one) => one.cost(now));
  }

  /** The way to a replica broke. It is ejected when that is too much, unless half of them are already. */
  broke(endpoint: Endpoint, now: number): void {
    endpoint.broke();
    // Containers that were replaced are refused at their old addresses: ask soon who is there now.
    const soon = now - this.#refreshMs + SOON_MS;
    if (this.#resolvedAt !== Number.POSITIVE_INFINITY) this.#resolvedAt = Math.min(this.#resolvedAt, soon);
    const all = this.endpoints;
    if (!endpoint.failing || endpoint.ejected(now) || !all.includes(endpoint)) return;
    if (all.filter((one) => one.ejected(now)).length + 1 <= Math.floor(all.length / 2)) endpoint.eject(now);
  }

  close(): void {
    this.#closed = true;
    for (const endpoint of this.#opened) endpoint.carrier.close();
    this.#endpoints.clear();
    this.#opened.clear();
  }

  #refresh(): void {
    this.#resolving ??= placesOf(this.#targets, this.#options.resolve).then((places) => {
      this.#resolving = undefined;
      this.#resolvedAt = performance.now();
      if (!this.#closed) this.#adopt(places);
    });
  }

  #adopt(places: readonly Place[]): void {
    const named = new Map(places.map((place) => [`${place.baseUrl} ${place.ip ?? ""}`, place]));
    for (const [key, endpoint] of this.#endpoints) {
      if (named.has(key)) continue;
      this.#endpoints.delete(key);
      endpoint.leave();
    }
    for (const [key, place] of named) {
      if (this.#endpoints.has(key)) continue;
      const open = this.#options.open ?? openCarrier;
      const endpoint = new Endpoint(open(place), { ...EJECTION, ...this.#options.ejection });
      this.#endpoints.set(key, endpoint);
      this.#opened.add(endpoint);
    }
    // Those that went may have been the healthy ones.
    const now = performance.now();
    const ejected = this.endpoints.filter((one) => one.ejected(now));
    for (const one of ejected.slice(Math.floor(this.#endpoints.size / 2))) one.readmit();
    for (const one of this.#opened) if (one.gone) this.#opened.delete(one);
  }
}
