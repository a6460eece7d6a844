import { createHash, randomBytes } from "node:crypto";
import type { Redis } from "ioredis";
import { abortable } from "../abortable.ts";
import { dependencyDown } from "../rpc/errors.ts";
import {
  assertTtl,
  type Cache,
  type CacheKey,
  type CacheLog,
  type CacheNamespace,
  type CacheTrouble,
  type Generation,
  type Lookup,
  maxTtlMs,
  maxValueBytes,
} from "./cache.ts";
import { assertNamespace } from "./cache-key.ts";
import { codeOf, connectRedis } from "./connection.ts";
import { fromEntry, toEntry } from "./entry.ts";
import { OwedDeletions } from "./owed-deletions.ts";
import { Patience } from "./patience.ts";

export interface RedisCacheConfig {
  /** `redis://[user:password@]host[:port][/db]`, or `rediss://…`. A secret: it is never logged. */
  url: string;
  log: CacheLog;
  /** Put before every key; default `am:`. */
  prefix?: string | undefined;
  /** How long one command may take; default 250 ms. Reads then find nothing. */
  commandTimeoutMs?: number | undefined;
  /** Commands that may be under way at once; default 1 000. */
  maxInFlight?: number | undefined;
  onTrouble?: ((trouble: CacheTrouble) => void) | undefined;
}

type Operation = CacheTrouble["operation"];

const nothing: Lookup = { value: undefined, generation: undefined };
/** A generation outlives every value that was stored under it. */
const generationTtlMs = 2 * maxTtlMs;

/**
 * The cache of several processes, in Redis ≥ 7.
 *
 * Each namespace has a generation: a random name under one key, which every entry repeats. Reading takes both in one
 * command and serves the entry only when they agree; invalidating deletes the generation, and the next reader begins a
 * new one. So nothing has to be searched for (no KEYS, no SCAN), a load that was under way during an invalidation stores
 * something that nobody serves, and an evicted or flushed generation makes entries vanish, never come back: random names
 * do not repeat, as a counter would that starts again.
 *
 * A deletion that Redis could not be told is owed: this process reads nothing under it until it is paid. Other processes
 * may serve the old value meanwhile, until its time to live has passed at most.
 */
export class RedisCache implements Cache {
  readonly #redis: Redis;
  readonly #log: CacheLog;
  readonly #prefix: string;
  readonly #maxInFlight: number;
  readonly #onTrouble: (trouble: CacheTrouble) => void;
  readonly #patience = new Patience({ failures: 5, restMs: 1_000 });
  readonly #owed: OwedDeletions;
  #inFlight = 0;
  #lost = false;
  #closed = false;

  constructor(config: RedisCacheConfig) {
    this.#log = config.log;
    this.#prefix = config.prefix ?? "am:";
    this.#maxInFlight = config.maxInFlight ?? 1_000;
    this.#onTrouble = config.onTrouble ?? (() => {});
    this.#redis = connectRedis(config.url, config.commandTimeoutMs ?? 250);
    this.#owed = new OwedDeletions(
      async (names) => (await this.#run("delete", () => this.#redis.del(...names))) !== undefined,
      () => this.#onTrouble({ operation: "invalidate", why: "forgotten" }),
    );
    this.#follow();
  }

  async get(key: CacheKey): Promise<string | undefined> {
    return (await this.lookup(key)).value;
  }

  async lookup(key: CacheKey): Promise<Lookup> {
    const [generationName, entryName] = this.#names(key);
    if (this.#owed.has(generationName) || this.#owed.has(entryName)) return nothing;
    const found = await this.#run("read", () => this.#redis.mget(generationName, entryName));
    if (found === undefined) return nothing;
    const [storedGeneration, entry] = found.reply;
    if (typeof storedGeneration !== "string")
      return { value: undefined, generation: await this.#begin(generationName) };
    const generation = storedGeneration as Generation;
    const value = typeof entry === "string" ? fromEntry(entry, key, generation) : undefined;
    if (value === "foreign") this.#onTrouble({ operation: "read", why: "foreign" });
    return { value: value === "foreign" ? undefined : value, generation };
  }

  async set(key: CacheKey, value: string, ttlMs: number, generation?: Generation): Promise<void> {
    assertTtl(ttlMs);
    if (Buffer.byteLength(value) > maxValueBytes) {
      this.#onTrouble({ operation: "write", why: "too_large" });
      return;
    }
    const current = generation ?? (await this.lookup(key)).generation;
    const [generationName, entryName] = this.#names(key);
    if (current === undefined || this.#owed.has(generationName) || this.#owed.has(entryName)) return;
    const entry = toEntry(key, current, value);
    await this.#run("write", () =>
      Promise.all([
        this.#redis.set(entryName, entry, "PX", Math.ceil(ttlMs)),
        this.#redis.pexpire(generationName, generationTtlMs),
      ]),
    );
  }

  async delete(key: CacheKey): Promise<void> {
    await this.#remove("delete", this.#names(key)[1]);
  }

  async invalidate(namespace: CacheNamespace): Promise<void> {
    assertNamespace(namespace);
    await this.#remove("invalidate", this.#generationName(namespace));
  }

  async ping(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const down = (cause?: unknown) => dependencyDown("redis", cause);
    if (this.#closed || this.#redis.status !== "ready") throw down();
    try {
      await abortable(this.#redis.ping(), signal);
    } catch (error) {
      throw error === signal?.reason ? error : down(new Error(codeOf(error)));
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#owed.close();
    this.#redis.disconnect();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins a generation, or takes the one that another reader has just begun. */
  async #begin(name: string): Promise<Generation | undefined> {
    const begun = randomBytes(12).toString("base64url");
    const set = await this.#run("read", () => this.#redis.set(name, begun, "PX", generationTtlMs, "NX", "GET"));
    if (set === undefined) return undefined;
    return (set.reply ?? begun) as Generation;
  }

  async #remove(operation: Operation, name: string): Promise<void> {
    if (this.#closed) return;
    if ((await this.#run(operation, () => this.#redis.del(name))) === undefined && !this.#closed) this.#owed.add(name);
  }

  /** Runs commands; undefined when they had no answer, which `onTrouble` has heard of then. */
  async #run<T>(operation: Operation, act: () => Promise<T>): Promise<{ reply: T } | undefined> {
    const trouble = (why: CacheTrouble["why"]) => {
      this.#onTrouble({ operation, why });
      return undefined;
    };
    if (this.#closed) return undefined;
    if (this.#redis.status !== "ready") return trouble("away");
    if (this.#inFlight >= this.#maxInFlight) return trouble("busy");
    if (!this.#patience.admit()) return trouble("away");
    this.#inFlight += 1;
    try {
      const reply = await act();
      this.#patience.succeeded();
      return { reply };
    } catch (error) {
      const code = codeOf(error);
      if (code === "refused") this.#patience.succeeded();
      else this.#patience.failed();
      return trouble(code);
    } finally {
      this.#inFlight -= 1;
    }
  }

  #follow(): void {
    this.#redis.on("ready", () => {
      if (this.#lost) this.#log.info({}, "Redis connection is back");
      this.#lost = false;
      this.#patience.succeeded();
      this.#owed.pay();
    });
    // Each attempt to connect that fails ends in "close" too; one line tells of all of them.
    this.#redis.on("close", () => {
      if (!this.#lost && !this.#closed) this.#log.warn({}, "Redis cannot be reached; nothing is cached");
      this.#lost = true;
    });
    // Without a listener an error would end the process. Its properties may hold the password (the AUTH command).
    this.#redis.on("error", () => {});
  }

  /** Both names have one hash tag, so that they are in one slot of a cluster. */
  #names(key: CacheKey): [generation: string, entry: string] {
    const generation = this.#generationName(key);
    // Hashed: of bounded length, nothing of the question is readable in Redis, and UTF-16 keeps lone surrogates apart.
    const digest = createHash("sha256").update(key.id, "utf16le").digest("base64url");
    return [generation, `${generation}:${digest}`];
  }

  #generationName({ tenantId, namespace }: CacheNamespace): string {
    return `${this.#prefix}{${tenantId}:${namespace}}`;
  }
}
