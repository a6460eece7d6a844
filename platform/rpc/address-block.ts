import { BlockList, isIP, isIPv4 } from "node:net";

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
export function plainAddress(text: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(text)?.[1];
  const bare = bracketed ?? (/^\d+(?:\.\d+){3}:\d+$/.test(text) ? text.slice(0, text.indexOf(":")) : text);
  const [address = ""] = bare.split("%", 1);
  const mapped = /^::ffff:(\d+(?:\.\d+){3})$/i.exec(address)?.[1];
  return mapped ?? address;
}

/** Loopback (RFC 1122, RFC 4291), private (RFC 1918, RFC 4193) and link-local networks. */
const NEAR = blockList([
  "127.0.0.0/8",
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "169.254.0.0/16",
  "::1/128",
  "fc00::/7",
  "fe80::/10",
]);

const FORWARDED = ["x-forwarded-for", "forwarded", "x-real-ip"];

/** Whether a plain address is of this host or of its private network. */
export function isNear(address: string): boolean {
  return contains(NEAR, address);
}

/** Whether a proxy has handed a request on: then it comes from wherever the proxy says, however near that one is. */
export function isHandedOn(hasHeader: (name: string) => boolean): boolean {
  return FORWARDED.some(hasHeader);
}
