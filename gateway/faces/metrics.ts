import { Code } from "@connectrpc/connect";
import { isHandedOn, isNear } from "#platform/rpc/address-block.ts";
import { AppError } from "#platform/rpc/errors.ts";
import type { Metrics } from "#platform/telemetry/metrics.ts";
import type { Face } from "./face.ts";

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
    const unproven = !options.trustsProxies && isHandedOn((name) => header.has(name));
    if (!options.isPublic && (unproven || !isNear(clientAddress))) {
      throw new AppError({
        code: Code.PermissionDenied,
        reason: "POLICY_DENIED",
        message: "Metrics are for this host and its private network. gateway.metrics_public opens them.",
      });
    }
    return { status: 200, text: await metrics.text(), contentType: metrics.contentType };
  };
}
