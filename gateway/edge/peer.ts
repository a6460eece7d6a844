import { BlockList, isIP, isIPv4 } from "node:net";

/** Finds the address of the client behind a request. */
export interface PeerResolver {
  /**
   * @param socketAddress the other end of the connection
   * @param forwardedFor the `X-Forwarded-For` header, if any
   */
  clientAddress(socketAddress: string | undefined, forwardedFor: string | undefined): string;
}

/**
 * The address of the connection's other end; with trusted proxies, the last address of `X-Forwarded-For` that is not one
 * of them. What stands before it was written by the client and proves nothing.
 *
 * @param trustedProxies addresses or CIDR blocks; throws an error for one that is neither
 */
export function createPeerResolver(trustedProxies: readonly string[]): PeerResolver {
  const trusted = blockList(trustedProxies);
  return {
    clientAddress(socketAddress = "", forwardedFor = "") {
      let client = plainAddress(socketAddress);
      const hops = forwardedFor.split(",").map((hop) => plainAddress(hop.trim()));
      while (hops.length > 0 && contains(trusted, client)) {
        const hop = hops.pop() ?? "";
        if (isIP(hop) === 0) break;
        client = hop;
      }
      return client;
    },
  };
}

/** Reads addresses and CIDR blocks. Throws an error that names the one that is neither. */
export function blockList(blocks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const block of blocks) {
    const [address = "", bits, ...more] = block.split("/");
    const family = isIPv4(address) ? "ipv4" : "ipv6";
    const most = family === "ipv4" ? 32 : 128;
    const prefix = bits === undefined ? most : Number(bits);
    if (isIP(address) === 0 || more.length > 0 || !/^\d{0,3}$/.test(bits ?? "") || bits === "" || prefix > most) {
      throw new Error(`${JSON.stringify(block)} is neither an address nor a CIDR block`);
    }
    list.addSubnet(address, prefix, family);
  }
  return list;
}

export function contains(list: BlockList, address: string): boolean {
  return isIP(address) !== 0 && list.check(address, isIPv4(address) ? "ipv4" : "ipv6");
}

/** Without brackets, port, zone and the IPv4-in-IPv6 prefix, under which a dual-stack socket shows IPv4 peers. */
function plainAddress(text: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(text)?.[1];
  const bare = bracketed ?? (/^\d+(?:\.\d+){3}:\d+$/.test(text) ? text.slice(0, text.indexOf(":")) : text);
  const [address = ""] = bare.split("%", 1);
  const mapped = /^::ffff:(\d+(?:\.\d+){3})$/i.exec(address)?.[1];
  return mapped ?? address;
}
