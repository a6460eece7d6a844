import { Agent } from "undici";
import { createThinFetch } from "./thin-fetch.ts";

/** What an operator door is made with. Every limit has a default and none can be switched off. */
export interface OperatorFetchOptions {
  /** Until a TCP and TLS connection stands, in milliseconds. Default 10 000. */
  connectTimeoutMs?: number;
  /** From the end of the request to the last header of the response, in milliseconds. Default 300 000. */
  headersTimeoutMs?: number;
  /** Longest silence inside a response body, in milliseconds. Default 120 000. */
  bodyIdleTimeoutMs?: number;
  /** Connections to one origin; requests above it wait for one. Default 512. */
  connectionsPerOrigin?: number;
  /** How long an idle connection is kept, in milliseconds. Default 30 000. */
  keepAliveMs?: number;
  /** Largest body of a response whose status is not 2xx, in bytes; the rest is cut off. Default 65 536. */
  maxErrorBodyBytes?: number;
  /** Headers added to every request where the caller has not set them, such as the trace context of the moment. */
  headers?: () => Record<string, string>;
}

/** A door to the internet, and the end of its connections. */
export interface OperatorFetch {
  /**
   * `fetch` as far as API clients need it: method, headers, a body of text or bytes, a signal. Redirects are answers, not
   * followed: a credential never goes to an address that a response named. Rejects with the signal's reason when aborted,
   * else with a `TypeError` whose `cause` is undici's error (its `code` tells a timeout from a broken connection).
   */
  fetch: typeof globalThis.fetch;
  /** Ends every connection at once. */
  close(): Promise<void>;
}

/**
 * The operator's door to the internet: for addresses that come from boot configuration (model providers, trace collectors,
 * Qdrant), never for one that a tenant, a model or a document named: those go through createTenantFetch.
 */
export function createOperatorFetch(options: OperatorFetchOptions = {}): OperatorFetch {
  const headersTimeout = options.headersTimeoutMs ?? 300_000;
  const bodyTimeout = options.bodyIdleTimeoutMs ?? 120_000;
  const agent = new Agent({
    connect: { timeout: options.connectTimeoutMs ?? 10_000 },
    connections: options.connectionsPerOrigin ?? 512,
    keepAliveTimeout: options.keepAliveMs ?? 30_000,
    headersTimeout,
    bodyTimeout,
    allowH2: false,
  });

  const fetch = createThinFetch({
    dispatcher: agent,
    maxErrorBodyBytes: options.maxErrorBodyBytes ?? 65_536,
    headers: options.headers,
  });
  return { fetch, close: () => agent.destroy() };
}
