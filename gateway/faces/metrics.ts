import { Code } from "@connectrpc/connect";
import { AppError } from "#platform/rpc/errors.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import { blockList, contains } from "../edge/peer.ts";
import type { Face } from "./face.ts";

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

/**
 * Prometheus asks without a credential, so the page is for near addresses only, unless it is configured to be public.
 * A request that a proxy handed on, as its headers show, comes from wherever the proxy says: behind an untrusted proxy
 * every address would look near.
 */
export function metricsFace(
  metrics: Pick<Metrics, "text" | "contentType">,
  options: { isPublic: boolean; trustsProxies: boolean },
): Face {
  return async ({ header, clientAddress }) => {
    const unproven = !options.trustsProxies && FORWARDED.some((name) => header.has(name));
    if (!options.isPublic && (unproven || !contains(NEAR, clientAddress))) {
      throw new AppError({
        code: Code.PermissionDenied,
        reason: "POLICY_DENIED",
        message: "Metrics are for this host and its private network. gateway.metrics_public opens them.",
      });
    }
    return { status: 200, text: await metrics.text(), contentType: metrics.contentType };
  };
}
