/** One bucket and what is to be taken from it (GCRA: a bucket that leaks at `rate`, of size `burst`). */
export interface Take {
  /** Whose bucket it is; of an address that nobody is known behind: {@link NO_TENANT}. */
  readonly tenantId: string;
  /** Names the bucket within the tenant; 1 to 200 characters. */
  readonly key: string;
  /** Whole number; 0 takes nothing and asks whether 1 could be taken. Default 1. */
  readonly cost?: number;
  /** Units that come back per second; above 0, at most {@link MAX_RATE}. */
  readonly rate: number;
  /** Units that may be taken at once; whole number, at least `cost`. */
  readonly burst: number;
}

export interface Taken {
  readonly allowed: boolean;
  /** Units that could be taken now. */
  readonly remaining: number;
  /** Time until the bucket is full again. */
  readonly resetMs: number;
  /** Time until the same take may be allowed; 0 when it was. */
  readonly retryAfterMs: number;
}

export interface LimitAnswer {
  /** True when every bucket allowed its part. Otherwise nothing was taken from any. */
  readonly allowed: boolean;
  /** In the order of the takes. */
  readonly taken: readonly Taken[];
  /** Where it was decided: for all processes, or, while Redis cannot be asked, for this one. */
  readonly by: "all" | "this process";
}

export interface TakeOptions {
  /** How many processes take from these buckets; each has its part of the limit while Redis cannot be asked. Default 1. */
  readonly replicas?: number;
}

/**
 * Rate limits: never more than `burst + rate · t` units in any span of `t` seconds. It never rejects because a server is
 * away and never waits for one longer than its command timeout; a RangeError for figures that make no sense.
 */
export interface Limiter extends AsyncDisposable {
  take(take: Take, options?: TakeOptions): Promise<Taken>;
  /** Takes from several buckets of one tenant, or from none. */
  takeAll(takes: readonly Take[], options?: TakeOptions): Promise<LimitAnswer>;
  close(): Promise<void>;
}

/** The tenant of buckets that belong to none. */
export const NO_TENANT = "-";

/** Most units per second: intervals are whole microseconds, rounded up, so that the error stays on the strict side. */
export const MAX_RATE = 100_000;
