import type { Redis } from "ioredis";
import type { CacheLog } from "./cache.ts";
import { codeOf, connectRedis } from "./connection.ts";
import { EmbeddedPermits } from "./embedded-permits.ts";
import { Patience } from "./patience.ts";
import { checkPermit, type PermitAnswer, type PermitRequest, type Permits } from "./permits.ts";

export interface RedisPermitsConfig {
  /** `redis://[user:password@]host[:port][/db]`, or `rediss://…`. A secret: it is never logged. */
  url: string;
  log: CacheLog;
  /** Put before every key; default `am:`. */
  prefix?: string | undefined;
  /** How long one command may take; default 100 ms. This process's own count holds then. */
  commandTimeoutMs?: number | undefined;
}

/** Forgets leases that have ended by Redis' clock. A key lives as long as its longest lease may. */
const LIVE = `
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now)
local function enter(holder, lease)
  redis.call("ZADD", KEYS[1], now + lease, holder)
  if redis.call("PTTL", KEYS[1]) < lease then redis.call("PEXPIRE", KEYS[1], lease) end
end
`;

const ACQUIRE = `${LIVE}
local holder, limit, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call("ZSCORE", KEYS[1], holder) or redis.call("ZCARD", KEYS[1]) < limit then
  enter(holder, lease)
  return { 1, redis.call("ZCARD", KEYS[1]) }
end
return { 0, redis.call("ZCARD", KEYS[1]) }
`;

const RENEW = `${LIVE}
for i = 2, #ARGV do enter(ARGV[i], tonumber(ARGV[1])) end
return redis.call("ZCARD", KEYS[1])
`;

const COUNT = `${LIVE}
return redis.call("ZCARD", KEYS[1])
`;

interface Scripted {
  amPermit(key: string, holder: string, limit: number, leaseMs: number): Promise<[number, number]>;
  amRenewPermits(key: string, leaseMs: number, ...holders: string[]): Promise<number>;
  amCountPermits(key: string): Promise<number>;
}

/**
 * The permits of several processes, in Redis ≥ 7: a sorted set per tenant, of holders by the end of their lease. While
 * Redis is away, slow or refuses, this process grants its part of the limit; it keeps count of its own all the time, so
 * that losing Redis, or Redis losing its memory, loses no holder for longer than until it renews.
 */
export class RedisPermits implements Permits {
  readonly #redis: Redis & Scripted;
  readonly #log: CacheLog;
  readonly #prefix: string;
  readonly #patience = new Patience({ failures: 3, restMs: 1_000 });
  readonly #own = new EmbeddedPermits();
  #lost = false;
  #closed = false;

  constructor({ url, log, prefix = "am:", commandTimeoutMs = 100 }: RedisPermitsConfig) {
    this.#log = log;
    this.#prefix = prefix;
    const redis = connectRedis(url, commandTimeoutMs);
    redis.defineCommand("amPermit", { lua: ACQUIRE, numberOfKeys: 1 });
    redis.defineCommand("amRenewPermits", { lua: RENEW, numberOfKeys: 1 });
    redis.defineCommand("amCountPermits", { lua: COUNT, numberOfKeys: 1 });
    this.#redis = redis as Redis & Scripted;
    // Without a listener an error would end the process. Its properties may hold the password (the AUTH command).
    this.#redis.on("error", () => {});
  }

  async acquire(request: PermitRequest): Promise<PermitAnswer> {
    checkPermit(request);
    const { tenantId, holder, limit, leaseMs, replicas = 1 } = request;
    const answer = await this.#ask(() => this.#redis.amPermit(this.#key(tenantId), holder, limit, leaseMs));
    if (answer === undefined) return { ...this.#own.acquireNow({ ...request, replicas }), by: "this process" };
    const [granted, held] = answer;
    if (granted === 1) this.#own.enter(tenantId, holder, leaseMs);
    return { granted: granted === 1, held, by: "all" };
  }

  async renew(tenantId: string, holders: readonly string[], leaseMs: number): Promise<void> {
    if (holders.length === 0) return;
    await this.#own.renew(tenantId, holders, leaseMs);
    await this.#ask(() => this.#redis.amRenewPermits(this.#key(tenantId), leaseMs, ...holders));
  }

  async release(tenantId: string, holder: string): Promise<void> {
    await this.#own.release(tenantId, holder);
    await this.#ask(() => this.#redis.zrem(this.#key(tenantId), holder));
  }

  async held(tenantId: string): Promise<number> {
    const count = await this.#ask(() => this.#redis.amCountPermits(this.#key(tenantId)));
    return count ?? this.#own.held(tenantId);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#redis.disconnect();
    await this.#own.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #key(tenantId: string): string {
    return `${this.#prefix}permits:{${tenantId}}`;
  }

  /** Undefined when Redis had no answer in time. */
  async #ask<T>(question: () => Promise<T>): Promise<T | undefined> {
    if (this.#closed || this.#redis.status !== "ready" || !this.#patience.admit()) return undefined;
    try {
      const answer = await question();
      this.#patience.succeeded();
      if (this.#lost) this.#log.info({}, "Redis is back; permits are shared again");
      this.#lost = false;
      return answer;
    } catch (error) {
      if (codeOf(error) !== "refused") this.#patience.failed();
      if (!this.#lost && !this.#closed) this.#log.warn({}, "Redis cannot be asked; permits are this process's own");
      this.#lost = true;
      return undefined;
    }
  }
}
