import type { Permits } from "#platform/redis/permits.ts";
import { FairQueue, type Waiting } from "#platform/resilience/fair-queue.ts";
import { poolFull } from "../errors.ts";
import { Backlog } from "./backlog.ts";

export interface RunPoolOptions {
  /** Counts a tenant's runs over all processes. */
  readonly permits: Permits;
  /** Runs that this process works on at the same time. */
  readonly maxRuns: number;
  /** Most runs that wait here, of all tenants together, and of one. */
  readonly maxWaiting: number;
  readonly maxWaitingPerTenant: number;
  /** Longest wait; then RESOURCE_EXHAUSTED. */
  readonly maxWaitMs: number;
  /** How long a permit outlives a process that has died. It is renewed three times as often. */
  readonly leaseMs: number;
  /** How often a tenant that is at its limit in other processes is asked for again. */
  readonly retryMs: number;
  /** Processes that share the limits while they cannot be counted together. */
  readonly replicas: number;
}

/** Share of a process's runs that {@link RunPool.tryEnter} may have in all, 0 to 1. */
const UNHURRIED_SHARE = 0.8;

/** A run that wants to begin. */
export interface Admission {
  readonly tenantId: string;
  /** Unique over all processes. */
  readonly holder: string;
  /** Most runs of the tenant at the same time, over all processes. */
  readonly tenantLimit: number;
  /** The tenant's share where tenants compete; a whole number from 1. */
  readonly weight: number;
  readonly signal: AbortSignal;
}

/** Leave to work on one run. Disposing of it twice is harmless. */
export type RunPermit = Disposable;

interface Applicant extends Admission {
  readonly settled: PromiseWithResolvers<RunPermit>;
  /** When it came, by count. */
  readonly order: number;
  /** Has its permit, or has gone. */
  over: boolean;
}

/**
 * Who may work: so many runs in this process, so many of one tenant over all processes. Those above it wait in a bounded
 * queue that is fair between tenants; a tenant that is at its own limit does not keep others from going on.
 *
 * Permits cannot leak: a wait that is given up gives back what it may have been granted meanwhile, a permit is a lease
 * that ends with its process, and {@link RunPool.use} is 0 when nobody works.
 */
export class RunPool implements AsyncDisposable {
  readonly #options: RunPoolOptions;
  readonly #queue: FairQueue<Applicant>;
  readonly #backlog: Backlog;
  /** Tenants at their limit, with those of their applicants that were asked for, in order. */
  readonly #parked = new Map<string, { applicants: Applicant[]; timer: NodeJS.Timeout }>();
  /** By tenant and holder, since when: the newest, where a holder works twice because it has lost its run to itself. */
  readonly #working = new Map<string, Map<string, { readonly since: number }>>();
  readonly #renewal: NodeJS.Timeout;
  /** Permits that are held. */
  #held = 0;
  /** Permits that are being asked for. */
  #asking = 0;
  #came = 0;

  constructor(options: RunPoolOptions) {
    this.#options = options;
    this.#queue = new FairQueue(options);
    this.#backlog = new Backlog();
    this.#renewal = setInterval(() => void this.#renew(), Math.max(1, options.leaseMs / 3));
    this.#renewal.unref();
  }

  /** Runs that work here, and those that wait. */
  get use(): { working: number; waiting: number } {
    let waiting = this.#queue.size + this.#asking;
    for (const { applicants } of this.#parked.values()) waiting += applicants.length;
    return { working: this.#held, waiting };
  }

  /** Share of what may wait that does, 0 to 1: how far behind this process is. */
  get pressure(): number {
    return this.use.waiting / this.#options.maxWaiting;
  }

  /** Waits for a permit; rejects with CONCURRENCY_LIMIT when there is no room or no permit in time, or with the signal's reason. */
  async enter(admission: Admission): Promise<RunPermit> {
    const { tenantId, weight, signal } = admission;
    signal.throwIfAborted();
    const applicant: Applicant = {
      ...admission,
      settled: Promise.withResolvers<RunPermit>(),
      order: this.#came++,
      over: false,
    };
    const parked = this.#parked.get(tenantId)?.applicants.length ?? 0;
    const { maxWaiting, maxWaitingPerTenant } = this.#options;
    const isFull = this.#queue.waitingOf(tenantId) + parked >= maxWaitingPerTenant || this.use.waiting >= maxWaiting;
    const waiting = isFull ? undefined : this.#queue.push(tenantId, weight, applicant);
    if (waiting === undefined) throw this.#full(admission);
    this.#pump();
    // Nobody has to wait in most cases, and then nothing is set up for it.
    if (applicant.over) return applicant.settled.promise;
    return this.#wait(applicant, waiting);
  }

  /**
   * A permit at once, or none: for work that can wait elsewhere. It goes before nobody who waits here, and leaves room for
   * those who will not wait.
   */
  async tryEnter({
    tenantId,
    holder,
    tenantLimit: limit,
  }: Omit<Admission, "weight" | "signal">): Promise<RunPermit | undefined> {
    const { permits, leaseMs, replicas, maxRuns } = this.#options;
    const most = Math.max(1, Math.floor(maxRuns * UNHURRIED_SHARE));
    if (this.#held + this.#asking >= most || this.#parked.has(tenantId) || this.#queue.size > 0) return undefined;
    this.#asking += 1;
    try {
      const { granted } = await permits.acquire({ tenantId, holder, limit, leaseMs, replicas });
      if (!granted) return undefined;
      this.#held += 1;
      return this.#work(tenantId, holder);
    } finally {
      this.#asking -= 1;
      this.#pump();
    }
  }

  /** Whether a run of the tenant would have to wait for this process. */
  crowded(tenantId: string, tenantLimit: number): boolean {
    const own = this.#working.get(tenantId)?.size ?? 0;
    return own >= tenantLimit || this.#held + this.#asking >= this.#options.maxRuns || this.use.waiting > 0;
  }

  /** A permit for a run that has begun elsewhere and goes on here: it counts, and it waits for nobody. */
  adopt(tenantId: string, holder: string): RunPermit {
    this.#held += 1;
    void this.#options.permits.renew(tenantId, [holder], this.#options.leaseMs);
    return this.#work(tenantId, holder);
  }

  /** Held permits are given back, and nobody is asked for again: whoever still waits is refused when its wait is over. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#renewal);
    for (const { timer } of this.#parked.values()) clearTimeout(timer);
    for (const [tenantId, holders] of this.#working) {
      for (const holder of holders.keys()) await this.#options.permits.release(tenantId, holder);
    }
    this.#working.clear();
  }

  async #wait(applicant: Applicant, waiting: Waiting<Applicant>): Promise<RunPermit> {
    const { signal, settled } = applicant;
    const leave = (reason: unknown) => {
      if (applicant.over) return;
      applicant.over = true;
      this.#queue.remove(waiting);
      settled.reject(reason);
      this.#unpark(applicant);
      this.#pump();
    };
    const onAbort = () => leave(signal.reason);
    const timer = setTimeout(() => leave(this.#full(applicant)), this.#options.maxWaitMs);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await settled.promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  #pump(): void {
    while (this.#room) {
      const next = this.#queue.take((tenantId) => !this.#parked.has(tenantId));
      if (next === undefined) return;
      this.#ask(next.item);
    }
  }

  get #room(): boolean {
    return this.#held + this.#asking < this.#options.maxRuns;
  }

  #ask(applicant: Applicant): void {
    const { permits, leaseMs, replicas } = this.#options;
    const { tenantId, holder, tenantLimit: limit } = applicant;
    this.#asking += 1;
    permits.acquire({ tenantId, holder, limit, leaseMs, replicas }).then(
      ({ granted }) => {
        this.#asking -= 1;
        if (granted) this.#held += 1;
        if (granted && applicant.over) this.#giveBack(tenantId, holder);
        else if (granted) this.#begin(applicant);
        else this.#park(applicant);
      },
      (error) => {
        this.#asking -= 1;
        applicant.over = true;
        applicant.settled.reject(error);
        this.#pump();
      },
    );
  }

  #begin(applicant: Applicant): void {
    applicant.over = true;
    applicant.settled.resolve(this.#work(applicant.tenantId, applicant.holder));
  }

  #work(tenantId: string, holder: string): RunPermit {
    const holders = this.#working.get(tenantId) ?? new Map<string, { readonly since: number }>();
    const work = { since: performance.now() };
    this.#working.set(tenantId, holders.set(holder, work));
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#backlog.ended(performance.now() - work.since);
        if (holders.get(holder) !== work) {
          this.#held -= 1;
          this.#pump();
          return;
        }
        holders.delete(holder);
        if (holders.size === 0 && this.#working.get(tenantId) === holders) this.#working.delete(tenantId);
        this.#giveBack(tenantId, holder);
      },
    };
  }

  /** The tenant's next applicant is tried as soon as one of its permits has come free. */
  #giveBack(tenantId: string, holder: string): void {
    this.#held -= 1;
    void this.#options.permits.release(tenantId, holder).finally(() => {
      this.#retry(tenantId);
      this.#pump();
    });
  }

  #park(applicant: Applicant): void {
    if (!applicant.over) {
      const { tenantId } = applicant;
      const parked = this.#parked.get(tenantId);
      if (parked === undefined) this.#parked.set(tenantId, { applicants: [applicant], timer: this.#later(tenantId) });
      else {
        parked.applicants.push(applicant);
        parked.applicants.sort((a, b) => a.order - b.order);
      }
    }
    this.#pump();
  }

  /** Without room it is tried again later, in vain or not. */
  #retry(tenantId: string): void {
    const parked = this.#parked.get(tenantId);
    if (parked === undefined) return;
    clearTimeout(parked.timer);
    const [next] = parked.applicants;
    if (next === undefined || !this.#room) {
      parked.timer = this.#later(tenantId);
      return;
    }
    this.#unpark(next);
    if (this.#parked.has(tenantId)) parked.timer = this.#later(tenantId);
    this.#ask(next);
  }

  #later(tenantId: string): NodeJS.Timeout {
    return setTimeout(() => this.#retry(tenantId), this.#options.retryMs * (0.75 + Math.random() / 2));
  }

  #unpark(applicant: Applicant): void {
    const parked = this.#parked.get(applicant.tenantId);
    const at = parked?.applicants.indexOf(applicant) ?? -1;
    if (parked === undefined || at < 0) return;
    parked.applicants.splice(at, 1);
    if (parked.applicants.length > 0) return;
    clearTimeout(parked.timer);
    this.#parked.delete(applicant.tenantId);
  }

  async #renew(): Promise<void> {
    const { permits, leaseMs } = this.#options;
    for (const [tenantId, holders] of this.#working) await permits.renew(tenantId, [...holders.keys()], leaseMs);
  }

  #full({ tenantId, tenantLimit }: Admission) {
    const { maxWaitingPerTenant, maxWaiting, maxRuns } = this.#options;
    const parked = this.#parked.get(tenantId)?.applicants.length ?? 0;
    const waiting = this.#queue.waitingOf(tenantId) + parked;
    const own = (parked > 0 || waiting >= maxWaitingPerTenant) && this.#queue.size < maxWaiting;
    const queue = own
      ? { name: tenantId, waiting, width: Math.min(tenantLimit, maxRuns) }
      : { name: "", waiting: this.use.waiting, width: maxRuns };
    return poolFull(own ? "tenant" : "server", this.#backlog.retryAfterMs(queue));
  }
}
