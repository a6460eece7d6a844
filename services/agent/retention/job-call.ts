import type { Call } from "#platform/rpc/call.ts";

/** On whose behalf the service cleans up by itself, for audit rows. */
export function jobCall(tenantId: string, signal: AbortSignal): Call {
  const principal = { tenantId, subject: "service:agent", scopes: [], credentialId: "", actors: [] };
  return { principal, signal, requestId: "", ip: "", userAgent: "" };
}
