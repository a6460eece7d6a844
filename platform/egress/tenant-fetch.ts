import { isIP } from "node:net";
import { Agent, buildConnector } from "undici";
import { isPublicAddress } from "./public-address.ts";
import { AddressRefused, type Resolve, resolvePublicName, vettedAddress } from "./resolve-host.ts";
import { createThinFetch } from "./thin-fetch.ts";

export interface TenantFetchOptions {
  /**
   * Origins (`http://models.internal:8000`) that the operator vouches for: they may be http, have any port and lie in a
   * private network.
   */
  trustedOrigins?: readonly string[];
  /** Until the name is resolved and a TCP and TLS connection stands, in milliseconds. Default 10 000. */
  connectTimeoutMs?: number;
  /** From the end of the request to the last header of the response, in milliseconds. Default 30 000. */
  headersTimeoutMs?: number;
  /** Longest silence inside a response body, in milliseconds. Default 30 000. */
  bodyIdleTimeoutMs?: number;
  /** From the request to the end of the response's body, in milliseconds. Default 60 000. */
  totalTimeoutMs?: number;
  /** Largest body of a 2xx response, in bytes. Default 1 048 576. */
  maxBodyBytes?: number;
  /** Largest body of any other response, in bytes; the rest is cut off. Default 16 384. */
  maxErrorBodyBytes?: number;
  /** Connections to one origin; requests above it wait for one. Default 16. */
  connectionsPerOrigin?: number;
  /** Gives the addresses of a name. Default: DNS. */
  resolve?: Resolve;
}

export interface TenantFetch {
  /** As {@link OperatorFetch.fetch}; an address that is refused is a TypeError whose `code`, or whose cause's, is `ADDRESS_REFUSED`. */
  fetch: typeof globalThis.fetch;
  /** Ends every connection at once. */
  close(): Promise<void>;
}

/**
 * The door to the internet for addresses that a tenant, a model or a document named, with a guard against server-side
 * request forgery: https only, on port 443 or one above 1023; no credentials in the address; every IP address of the name
 * must be public; the one that was looked at is the one that is dialled (the name stays in the Host header and in the TLS
 * handshake), and the socket is looked at again once it stands. Names are resolved where connections are made, so nothing
 * that leads to a socket goes around the guard. Redirects are answers, proxies of the environment are not used, bodies and
 * times are capped.
 */
export function createTenantFetch(options: TenantFetchOptions = {}): TenantFetch {
  const trusted = new Set((options.trustedOrigins ?? []).map((origin) => new URL(origin).origin));
  const resolve = options.resolve ?? resolvePublicName;
  const connectTimeoutMs = options.connectTimeoutMs ?? 10_000;
  const connect = buildConnector({ timeout: connectTimeoutMs, maxCachedSessions: 0 });
  const dial: buildConnector.connector = (target, callback) => {
    // undici gives the host here without the brackets of an IPv6 literal, and the port empty where it is the scheme's own.
    const host = isIP(target.hostname) === 6 ? `[${target.hostname}]` : target.hostname;
    const origin = new URL(`${target.protocol}//${host}${target.port ? `:${target.port}` : ""}`).origin;
    const allowed = trusted.has(origin) ? () => true : isPublicAddress;
    vettedAddress(host, resolve, allowed).then(
      (address) => {
        const servername = isIP(target.hostname) === 0 ? target.hostname : undefined;
        connect({ ...target, hostname: address, ...(servername !== undefined && { servername }) }, (error, socket) => {
          if (error !== null) return callback(error, null);
          if (allowed(socket.remoteAddress ?? "")) return callback(null, socket);
          socket.destroy();
          callback(new AddressRefused("it leads to another one"), null);
        });
      },
      (error) => callback(error instanceof Error ? error : new Error("unresolved"), null),
    );
  };
  const agent = new Agent({
    connect: dial,
    connections: options.connectionsPerOrigin ?? 16,
    keepAliveTimeout: 10_000,
    headersTimeout: options.headersTimeoutMs ?? 30_000,
    bodyTimeout: options.bodyIdleTimeoutMs ?? 30_000,
    allowH2: false,
  });
  const fetch = createThinFetch({
    dispatcher: agent,
    maxErrorBodyBytes: options.maxErrorBodyBytes ?? 16_384,
    maxBodyBytes: options.maxBodyBytes ?? 1_048_576,
    check: (url) => checkAddress(url, trusted),
  });
  const totalTimeoutMs = options.totalTimeoutMs ?? 60_000;
  const timed: typeof globalThis.fetch = (input, init = {}) => {
    const deadline = AbortSignal.timeout(totalTimeoutMs);
    const signal = init.signal ? AbortSignal.any([init.signal, deadline]) : deadline;
    return fetch(input, { ...init, signal });
  };
  return { fetch: timed, close: () => agent.destroy() };
}

/** What can be said of an address before its name is resolved. */
function checkAddress(url: URL, trusted: ReadonlySet<string>): void {
  if (url.username !== "" || url.password !== "") throw new AddressRefused("it holds credentials");
  if (trusted.has(url.origin)) return;
  if (url.protocol !== "https:") throw new AddressRefused("it is not https");
  const port = url.port === "" ? 443 : Number(url.port);
  if (port !== 443 && port < 1_024) throw new AddressRefused("its port is one of another protocol's");
  const literal = url.hostname.startsWith("[") ? url.hostname.slice(1, -1) : url.hostname;
  if (isIP(literal) !== 0 && !isPublicAddress(literal)) throw new AddressRefused("it is not public");
}
