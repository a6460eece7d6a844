import { Resolver } from "node:dns/promises";
import { isIP } from "node:net";
import { isPublicAddress } from "./public-address.ts";

/** All addresses of a name, A and AAAA. */
export type Resolve = (host: string) => Promise<readonly string[]>;

const resolveMs = 2_000;
const maxAnswers = 16;

/** An address that a tenant named and that is not to be asked. */
export class AddressRefused extends TypeError {
  readonly code = "ADDRESS_REFUSED";

  constructor(why: string) {
    super(`the address is refused: ${why}`);
    this.name = "AddressRefused";
  }
}

/** Asks the name servers themselves: what this machine's hosts file says is of no concern to a tenant. */
export async function resolvePublicName(host: string): Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: resolveMs, tries: 1 });
  const timer = setTimeout(() => resolver.cancel(), resolveMs);
  try {
    const [v4, v6] = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    const found = [v4, v6].flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    if (found.length === 0 && v4.status === "rejected") throw v4.reason;
    return found;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The one address to dial for a host of a URL, brackets included. Every address that its name has must be allowed: a name
 * with a public and a private one is refused. Rejects with {@link AddressRefused} or with the resolver's error.
 */
export async function vettedAddress(
  host: string,
  resolve: Resolve,
  allowed: (address: string) => boolean = isPublicAddress,
): Promise<string> {
  const literal = host.startsWith("[") ? host.slice(1, -1) : host;
  const addresses = isIP(literal) === 0 ? await resolve(host) : [literal];
  if (addresses.length > maxAnswers) throw new AddressRefused("its name has too many addresses");
  if (!addresses.every(allowed)) throw new AddressRefused("it is not public");
  const [first] = addresses;
  if (first === undefined) throw new AddressRefused("its name has no address");
  return first;
}
