import { lookup } from "node:dns/promises";
import { isIP } from "node:net";

/** One configured address of a module: a base URL whose host may stand for several replicas. */
export interface Target {
  /** `http://host:port`. */
  readonly baseUrl: string;
  /** A name to ask DNS for; undefined for an IP address and for this machine. */
  readonly name: string | undefined;
}

/** Where one replica is: the base URL, and which address of its host to connect to when there are several. */
export interface Place {
  readonly baseUrl: string;
  readonly ip: string | undefined;
}

/** All addresses (A and AAAA) of a host name. */
export type Resolve = (name: string) => Promise<readonly string[]>;

const EXPECTED = "base URLs (http://, https:// or dns+http://) with commas between";

/**
 * Reads an address list: base URLs with commas between. `dns+http://host` says the same as `http://host`: every address
 * of the host is a replica. Throws an Error that says which entry is wrong; it quotes none, as a URL may hold a password.
 */
export function parseTargets(text: string): readonly Target[] {
  const targets = text.split(",").map((entry, index) => parseTarget(entry.trim(), `entry ${index + 1}`));
  const urls = new Set(targets.map(({ baseUrl }) => baseUrl));
  if (urls.size !== targets.length) throw new Error("names the same address twice");
  return targets;
}

function parseTarget(entry: string, which: string): Target {
  const text = entry.replace(/^dns\+(?=https?:)/, "");
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || !/^https?:\/\//i.test(text)) {
    throw new Error(`${which} is not a base URL; expected ${EXPECTED}`);
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new Error(`${which} must have no user, query or fragment`);
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  // The two addresses of localhost are one server, which may listen on only one of them.
  const fixed = isIP(host) !== 0 || host === "localhost" || host.endsWith(".localhost");
  return { baseUrl: url.origin + url.pathname.replace(/\/+$/, ""), name: fixed ? undefined : host };
}

/**
 * The replicas that targets stand for at the moment. A name with one address, or that cannot be resolved, is one place whose
 * connection resolves it anew; so it behaves, and fails, as a plain connection does.
 */
export async function placesOf(targets: readonly Target[], resolve: Resolve = resolveAll): Promise<readonly Place[]> {
  const places = await Promise.all(
    targets.map(async ({ baseUrl, name }) => {
      const ips = name === undefined ? [] : await resolve(name).catch(() => []);
      return ips.length > 1 ? [...new Set(ips)].map((ip) => ({ baseUrl, ip })) : [{ baseUrl, ip: undefined }];
    }),
  );
  return places.flat();
}

/** By the system's resolver, so that /etc/hosts, Docker and Kubernetes search domains work. */
async function resolveAll(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true, order: "verbatim" })).map(({ address }) => address);
}
