import type { Redis } from "ioredis";
import type { CacheLog } from "./cache.ts";
import { codeOf, connectRedis } from "./connection.ts";
import { EmbeddedLimiter } from "./embedded-limiter.ts";
import { allows, type Cells, cellsOf, takenOf } from "./gcra.ts";
import type { LimitAnswer, Limiter, Take, Taken, TakeOptions } from "./limiter.ts";
import { Patience } from "./patience.ts";

export interface RedisLimiterConfig {
  /** `redis://[user:password@]host[:port][/db]`, or `rediss://…`. A secret: it is never logged. */
  url: string;
  log: CacheLog;
  /** Put before every key; default `am:`. */
  prefix?: string | undefined;
  /** How long one command may take; default 100 ms. This process's own limits hold then. */
  commandTimeoutMs?: number | undefined;
  /** Commands that may be under way at once; default 5 000. */
  maxInFlight?: number | undefined;
  /** Instead of Redis' clock and this process's, in microseconds: for tests of the arithmetic. */
  nowMicros?: (() => number) | undefined;
}

/**
 * The arithmetic of gcra.ts for one or more buckets, all or nothing. Time is Redis', so that no two processes disagree
 * about it; the time to live is set with the value, so that no bucket stays behind. Answers the backlogs in µs, behind a
 * 1 when all allowed.
 */
const SCRIPT = `
local now
if ARGV[1] == "" then
  local time = redis.call("TIME")
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  now = tonumber(ARGV[1])
end
local answer = { 1 }
for i = 1, #KEYS do
  local interval, cost, tolerance = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local spent = tonumber(redis.call("GET", KEYS[i]) or now)
  local backlog = math.min(math.max(spent - now, 0), tolerance)
  if backlog + math.max(cost, 1) * interval > tolerance then answer[1] = 0 end
  answer[i + 1] = backlog
end
if answer[1] == 1 then
  for i = 1, #KEYS do
    local cost = tonumber(ARGV[3 * i])
    if cost > 0 then
      local backlog = answer[i + 1] + cost * tonumber(ARGV[3 * i - 1])
      redis.call("SET", KEYS[i], string.format("%.0f", now + backlog), "PX", math.ceil(backlog / 1000) + 1000)
    end
  end
end
return answer
`;

interface Scripted {
  amTake(keys: number, ...keysAndFigures: (string | number)[]): Promise<number[]>;
}

/**
 * The limits of several processes, in Redis ≥ 7. While Redis is away, slow or refuses, this process takes from buckets
 * of its own with its part of each limit; it keeps them up to date all the time, so that losing Redis, or Redis losing
 * its memory, gives nobody a second burst from the same process.
 */
export class RedisLimiter implements Limiter {
  readonly #redis: Redis & Scripted;
  readonly #log: CacheLog;
  readonly #prefix: string;
  readonly #maxInFlight: number;
  readonly #nowMicros: (() => number) | undefined;
  readonly #patience = new Patience({ failures: 3, restMs: 1_000 });
  readonly #own: EmbeddedLimiter;
  #inFlight = 0;
  #lost = false;
  #closed = false;

  constructor(config: RedisLimiterConfig) {
    this.#log = config.log;
    this.#prefix = config.prefix ?? "am:";
    this.#maxInFlight = config.maxInFlight ?? 5_000;
    this.#nowMicros = config.nowMicros;
    this.#own = new EmbeddedLimiter({ nowMicros: config.nowMicros });
    const redis = connectRedis(config.url, config.commandTimeoutMs ?? 100);
    redis.defineCommand("amTake", { lua: SCRIPT });
    this.#redis = redis as Redis & Scripted;
    this.#follow();
  }

  async take(take: Take, options?: TakeOptions): Promise<Taken> {
    return (await this.takeAll([take], options)).taken[0] as Taken;
  }

  async takeAll(takes: readonly Take[], { replicas = 1 }: TakeOptions = {}): Promise<LimitAnswer> {
    const cells = takes.map(cellsOf);
    if (takes.some(({ tenantId }) => tenantId !== takes[0]?.tenantId))
      throw new RangeError("the takes are of two tenants");
    const backlogs = await this.#ask(takes, cells);
    if (backlogs === undefined) return { ...this.#own.takeNow(takes, replicas), by: "this process" };
    const [verdict, ...before] = backlogs;
    const allowed = verdict === 1;
    // What Redis has forgotten this process has not.
    const own = allowed ? this.#own.takeNow(takes) : undefined;
    if (own?.allowed === false) return { ...own, by: "this process" };
    return {
      allowed,
      taken: cells.map((one, i) => {
        const backlog = before[i] ?? 0;
        return takenOf(backlog, allows(backlog, one), allowed, one);
      }),
      by: "all",
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#redis.disconnect();
    await this.#own.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Undefined when Redis had no answer in time. */
  async #ask(takes: readonly Take[], cells: readonly Cells[]): Promise<number[] | undefined> {
    if (this.#closed || this.#redis.status !== "ready") return undefined;
    if (this.#inFlight >= this.#maxInFlight || !this.#patience.admit()) return undefined;
    this.#inFlight += 1;
    try {
      const names = takes.map(({ tenantId, key }) => `${this.#prefix}rate:{${tenantId}}:${key}`);
      const figures = cells.flatMap(({ interval, cost, tolerance }) => [interval, cost, tolerance]);
      const answer = await this.#redis.amTake(names.length, ...names, this.#nowMicros?.() ?? "", ...figures);
      this.#regain();
      return answer;
    } catch (error) {
      if (codeOf(error) !== "refused") this.#patience.failed();
      this.#lose();
      return undefined;
    } finally {
      this.#inFlight -= 1;
    }
  }

  #lose(): void {
    if (!this.#lost && !this.#closed) this.#log.warn({}, "Redis cannot be asked; rate limits are this process's own");
    this.#lost = true;
  }

  #regain(): void {
    if (this.#lost) this.#log.info({}, "Redis is back; rate limits are shared again");
    this.#lost = false;
    this.#patience.succeeded();
  }

  #follow(): void {
    this.#redis.on("ready", () => this.#regain());
    this.#redis.on("close", () => this.#lose());
    // Without a listener an error would end the process. Its properties may hold the password (the AUTH command).
    this.#redis.on("error", () => {});
  }
}
