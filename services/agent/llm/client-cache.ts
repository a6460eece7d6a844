import type { ModelCredential } from "./chat-model.ts";
import { ModelError } from "./model-error.ts";
import { sendable } from "./provider-model.ts";

/** Where a client sends its requests, and through which door. */
export interface ClientTarget {
  apiKey: string;
  baseUrl: string;
  fetch: typeof globalThis.fetch;
}

export interface ClientCacheOptions<Client> {
  /** The platform's own; without one every call brings its credential. */
  apiKey: string | undefined;
  baseUrl: string;
  /** The operator's door: to {@link baseUrl} and nowhere else. */
  fetch: typeof globalThis.fetch;
  /** The door to addresses that a tenant named; without one they are refused. */
  tenantFetch: typeof globalThis.fetch | undefined;
  make: (target: ClientTarget) => Client;
  /** Clients kept for tenants' credentials. Default 256. */
  capacity?: number;
}

/**
 * An SDK's client per credential: made once, kept while it is among those used last. The platform's key goes to the
 * platform's address only, a tenant's address is asked through the tenant's door only.
 */
export class ClientCache<Client> {
  readonly #options: ClientCacheOptions<Client>;
  readonly #capacity: number;
  readonly #platform: Client | undefined;
  readonly #own = new Map<string, Client>();

  constructor(options: ClientCacheOptions<Client>) {
    this.#options = options;
    this.#capacity = options.capacity ?? 256;
    const { apiKey, baseUrl, fetch, make } = options;
    this.#platform = apiKey === undefined ? undefined : make({ apiKey: sendable(apiKey), baseUrl, fetch });
  }

  /** Clients kept for tenants' credentials now. */
  get size(): number {
    return this.#own.size;
  }

  /** The client of a credential, or the platform's. Throws a ModelError. */
  get(credential: ModelCredential | undefined): Client {
    if (credential === undefined) {
      if (this.#platform !== undefined) return this.#platform;
      throw new ModelError("authentication", { retryable: false, detail: "no API key" });
    }
    const key = JSON.stringify([credential.apiKey, credential.baseUrl ?? ""]);
    const known = this.#own.get(key);
    const client = known ?? this.#make(credential);
    this.#own.delete(key);
    this.#own.set(key, client);
    if (this.#own.size > this.#capacity) this.#own.delete(this.#own.keys().next().value as string);
    return client;
  }

  #make(credential: ModelCredential): Client {
    const { make, fetch, baseUrl, tenantFetch } = this.#options;
    const apiKey = sendable(credential.apiKey);
    if (credential.baseUrl === undefined) return make({ apiKey, baseUrl, fetch });
    if (tenantFetch === undefined || !URL.canParse(credential.baseUrl)) {
      throw new ModelError("authentication", { retryable: false, code: "address_refused" });
    }
    return make({ apiKey, baseUrl: credential.baseUrl, fetch: tenantFetch });
  }
}
