import type { LogFields } from "../telemetry/log-fields.ts";

declare const made: unique symbol;

/**
 * What a cached value is kept under; only `cacheKey` makes one, so that a key is never glued together from text and two
 * requests never share one (the flaw of CVE-2026-33729 and CVE-2024-56323).
 */
export interface CacheKey {
  readonly [made]: true;
  readonly tenantId: string;
  readonly namespace: string;
  /** Injective text of everything that {@link cacheKey} was given. */
  readonly id: string;
}

/** All keys of one tenant and one namespace, which are invalidated together. */
export interface CacheNamespace {
  readonly tenantId: string;
  readonly namespace: string;
}

/** The state of a namespace at one moment: a value that was loaded then is served only while the state is the same. */
export type Generation = string & { readonly [made]: "generation" };

/** What a look at the cache found. `generation` is undefined when nothing can be cached at the moment. */
export type Lookup = { readonly value: string | undefined; readonly generation: Generation | undefined };

/**
 * A cache of text. It is never needed: when it is away, slow or full, reads find nothing and writes are dropped, and no
 * method but `ping` rejects. Each answers within the command timeout, so none takes a signal. Two implementations pass one
 * contract suite: `RedisCache` and `EmbeddedCache`.
 *
 * A value is served until its time to live has passed, its key was deleted, or its namespace was invalidated after its
 * load began. The order is the caller's duty: commit the change, then invalidate.
 */
export interface Cache extends AsyncDisposable {
  get(key: CacheKey): Promise<string | undefined>;
  /** `get`, and on a miss the generation to give to `set` with what is loaded now. */
  lookup(key: CacheKey): Promise<Lookup>;
  /**
   * Keeps a value for `ttlMs` (1 ms to 24 h) at most. Without a generation the value counts as loaded now: only right
   * when it was not read from elsewhere. Values of more than {@link maxValueBytes} are dropped.
   */
  set(key: CacheKey, value: string, ttlMs: number, generation?: Generation): Promise<void>;
  delete(key: CacheKey): Promise<void>;
  /** No value of the namespace that was loaded before is served any more, by any process. */
  invalidate(namespace: CacheNamespace): Promise<void>;
  /** Rejects with `DEPENDENCY_DOWN` when the cache is not usable now. */
  ping(signal?: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** What a cache could not do, for a metric; names and counts only. */
export interface CacheTrouble {
  operation: "read" | "write" | "delete" | "invalidate";
  /**
   * `away`: not connected, or taken for dead; `busy`: too many commands under way; `timeout`; `refused`: the server
   * answered with an error; `too_large`; `foreign`: an entry of another tenant or an unreadable one was found under the
   * key; `forgotten`: an invalidation had to be given up, so old values may be served until their time has passed.
   */
  why: "away" | "busy" | "timeout" | "refused" | "too_large" | "foreign" | "forgotten";
}

/** Where a cache reports that it went away and came back; `Log` fits. Never given keys, values or URLs. */
export interface CacheLog {
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
}

/** As much as a model is shown of a session (agent.context), which is by far the largest value. */
export const maxValueBytes = 8 * 1024 ** 2;
export const maxTtlMs = 24 * 3_600_000;

/** Checks a time to live. Throws `TypeError`. */
export function assertTtl(ttlMs: number): void {
  if (Number.isFinite(ttlMs) && ttlMs >= 1 && ttlMs <= maxTtlMs) return;
  throw new TypeError(`a time to live is 1 to ${maxTtlMs} ms, not ${ttlMs}`);
}
