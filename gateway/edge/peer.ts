import { isIP } from "node:net";
import { blockList, contains, plainAddress } from "#platform/rpc/address-block.ts";

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
