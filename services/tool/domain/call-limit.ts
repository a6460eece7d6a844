import type { CodeTool } from "#platform/plugin/define-tool.ts";
import type { Limiter } from "#platform/redis/limiter.ts";
import type { Call } from "#platform/rpc/call.ts";

/** Whether a call may run now. */
export type Admission =
  | { readonly allowed: true; readonly callsLeft?: number }
  | { readonly allowed: false; readonly retryAfterMs: number };

/** From this share of the limit on, the model is told how many calls are left. */
const WARN_FROM = 0.2;

/** Takes one call from the tenant's share of a tool. */
export async function takeCall(limiter: Limiter, call: Call, { name, callsPerMinute }: CodeTool): Promise<Admission> {
  if (callsPerMinute === 0) return { allowed: true };
  const bucket = { tenantId: call.principal.tenantId, key: `tool:${name}` };
  const taken = await limiter.take({ ...bucket, rate: callsPerMinute / 60, burst: callsPerMinute });
  if (!taken.allowed) return { allowed: false, retryAfterMs: taken.retryAfterMs };
  return { allowed: true, ...(taken.remaining <= callsPerMinute * WARN_FROM ? { callsLeft: taken.remaining } : {}) };
}
