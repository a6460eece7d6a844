import { dependencyDown } from "../rpc/errors.ts";
import {
  assertTtl,
  type Cache,
  type CacheKey,
  type CacheNamespace,
  type CacheTrouble,
  type Generation,
  type Lookup,
  maxValueBytes,
} from "./cache.ts";
import { assertNamespace } from "./cache-key.ts";

export interface EmbeddedCacheConfig {
  /** Most values that are kept; default 50 000. */
  maxEntries?: number | undefined;
  /** Most memory that values and keys may take, by estimate; default 64 MiB. */
  maxBytes?: number | undefined;
  onTrouble?: ((trouble: CacheTrouble) => void) | undefined;
  /** A monotonic clock in milliseconds. */
  now?: (() => number) | undefined;
}

interface Entry {
  value: string;
  generation: Generation;
  expiresAt: number;
  bytes: number;
}

/** What a Map entry, its object and its strings' headers take beside the text. */
const overheadBytes = 200;
const maxNamespaces = 50_000;

/** The cache of a mesh that runs in one process: least recently used values go first; time is monotonic. */
export class EmbeddedCache implements Cache {
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  readonly #onTrouble: (trouble: CacheTrouble) => void;
  readonly #now: () => number;
  /** By key; a Map keeps the order of insertion, so that a value that is used goes out and in again. */
  readonly #entries = new Map<string, Entry>();
  /** By namespace, in the same order. A namespace that drops out begins anew, with nothing in it. */
  readonly #generations = new Map<string, Generation>();
  #bytes = 0;
  #begun = 0;
  #closed = false;

  constructor(config: EmbeddedCacheConfig = {}) {
    this.#maxEntries = config.maxEntries ?? 50_000;
    this.#maxBytes = config.maxBytes ?? 64 * 1024 ** 2;
    this.#onTrouble = config.onTrouble ?? (() => {});
    this.#now = config.now ?? (() => performance.now());
  }

  async get(key: CacheKey): Promise<string | undefined> {
    return (await this.lookup(key)).value;
  }

  async lookup(key: CacheKey): Promise<Lookup> {
    if (this.#closed) return { value: undefined, generation: undefined };
    const generation = this.#generation(key);
    const entry = this.#entries.get(key.id);
    if (entry === undefined) return { value: undefined, generation };
    this.#drop(key.id);
    if (entry.generation !== generation || entry.expiresAt <= this.#now()) return { value: undefined, generation };
    this.#keep(key.id, entry);
    return { value: entry.value, generation };
  }

  async set(key: CacheKey, value: string, ttlMs: number, generation?: Generation): Promise<void> {
    assertTtl(ttlMs);
    if (this.#closed) return;
    this.#drop(key.id);
    // In memory, where a string has one or two bytes per unit; two is the bound.
    const bytes = 2 * (key.id.length + value.length) + overheadBytes;
    if (Buffer.byteLength(value) > maxValueBytes || bytes > this.#maxBytes) {
      this.#onTrouble({ operation: "write", why: "too_large" });
      return;
    }
    this.#keep(key.id, {
      value,
      generation: generation ?? this.#generation(key),
      expiresAt: this.#now() + ttlMs,
      bytes,
    });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#maxEntries && this.#bytes <= this.#maxBytes) break;
      this.#drop(oldest);
    }
  }

  async delete(key: CacheKey): Promise<void> {
    this.#drop(key.id);
  }

  async invalidate(namespace: CacheNamespace): Promise<void> {
    assertNamespace(namespace);
    this.#generations.delete(nameOf(namespace));
  }

  async ping(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#closed) throw dependencyDown("cache");
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#entries.clear();
    this.#generations.clear();
    this.#bytes = 0;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #generation(namespace: CacheNamespace): Generation {
    const name = nameOf(namespace);
    let generation = this.#generations.get(name);
    if (generation === undefined) {
      this.#begun += 1;
      generation = String(this.#begun) as Generation;
    }
    this.#generations.delete(name);
    this.#generations.set(name, generation);
    for (const oldest of this.#generations.keys()) {
      if (this.#generations.size <= maxNamespaces) break;
      this.#generations.delete(oldest);
    }
    return generation;
  }

  #keep(id: string, entry: Entry): void {
    this.#entries.set(id, entry);
    this.#bytes += entry.bytes;
  }

  #drop(id: string): void {
    this.#bytes -= this.#entries.get(id)?.bytes ?? 0;
    this.#entries.delete(id);
  }
}

/** Injective: neither a tenant nor a namespace contains a space. */
function nameOf({ tenantId, namespace }: CacheNamespace): string {
  return `${tenantId} ${namespace}`;
}
