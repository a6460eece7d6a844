import type { Call } from "#platform/rpc/call.ts";
import type { Principal } from "#platform/rpc/principal.ts";

/** The call on whose behalf a run works that somebody else began or queued, as far as the run has kept it. */
export function storedCall(principal: Principal, signal: AbortSignal): Call {
  return { principal, signal, requestId: "", ip: "", userAgent: "" };
}
