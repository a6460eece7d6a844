import { BlockList, isIPv4, isIPv6 } from "node:net";

/** IPv4 blocks that are not globally reachable (IANA special-purpose registry), and addresses of clouds' own services. */
const refused4: readonly (readonly [network: string, prefix: number])[] = [
  ["0.0.0.0", 8], // this network
  ["10.0.0.0", 8],
  ["100.64.0.0", 10], // carrier-grade NAT; also a cloud's metadata
  ["127.0.0.0", 8],
  ["168.63.129.16", 32], // Azure's platform address
  ["169.254.0.0", 16], // link-local; metadata
  ["172.16.0.0", 12],
  ["192.0.0.0", 24], // protocol assignments; metadata at 192.0.0.192
  ["192.0.2.0", 24],
  ["192.88.99.0", 24], // 6to4 relays
  ["192.168.0.0", 16],
  ["198.18.0.0", 15], // benchmarks
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 4], // multicast
  ["240.0.0.0", 4], // reserved, broadcast
];

/** Blocks of 2000::/3 that are not. Outside of it nothing is: mapped, NAT64, unique local, link-local, multicast. */
const refused6: readonly (readonly [network: string, prefix: number])[] = [
  ["2001::", 23], // protocol assignments: Teredo (which embeds IPv4), benchmarks, ORCHID
  ["2001:db8::", 32],
  ["2002::", 16], // 6to4, which embeds IPv4
  ["3fff::", 20],
];

const refused = new BlockList();
for (const [network, prefix] of refused4) refused.addSubnet(network, prefix, "ipv4");
for (const [network, prefix] of refused6) refused.addSubnet(network, prefix, "ipv6");
const global6 = new BlockList();
global6.addSubnet("2000::", 3, "ipv6");

/**
 * Whether an IP address, as text without brackets, is one that the whole internet reaches. What is not an address, what has
 * a zone and what embeds an IPv4 address in an IPv6 one is not.
 */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !refused.check(address, "ipv4");
  if (!isIPv6(address) || address.includes("%")) return false;
  return global6.check(address, "ipv6") && !refused.check(address, "ipv6");
}
