import type { CallOptions, HandlerContext } from "@connectrpc/connect";
import { Code, createContextKey, createContextValues } from "@connectrpc/connect";
import { AppError } from "./errors.ts";
import type { Principal } from "./principal.ts";

/** What every layer below a handler knows of the call that it serves. */
export interface Call {
  readonly principal: Principal;
  /** Aborts when the caller leaves or the deadline passes; also after the call is done. */
  readonly signal: AbortSignal;
  readonly requestId: string;
  /** Address of the client at the edge; empty when unknown. */
  readonly ip: string;
  readonly userAgent: string;
  /** Milliseconds since the epoch; undefined when the caller set none. */
  readonly deadline?: number | undefined;
}

/** What the pipeline learns of a call before its body is read. */
export interface Arrival {
  requestId: string;
  ip: string;
  userAgent: string;
  principal: Principal | undefined;
  /** `performance.now()` at arrival. */
  startedAt: number;
}

/** Context value of the server pipeline: set by the request gate, read by interceptors and handlers. */
export const arrivalKey = createContextKey<Arrival | undefined>(undefined, { description: "arrival" });

/** Context value of links: the call on whose behalf an onward call is made. */
export const onwardKey = createContextKey<Call | undefined>(undefined, { description: "onward call" });

/** The call that a handler serves. Throws UNAUTHENTICATED when the pipeline found no principal. */
export function callOf(context: HandlerContext): Call {
  const arrival = context.values.get(arrivalKey);
  if (arrival?.principal === undefined) {
    throw new AppError({
      code: Code.Unauthenticated,
      reason: "CREDENTIAL_MISSING",
      message: "This method needs a credential.",
    });
  }
  const remaining = context.timeoutMs();
  return {
    principal: arrival.principal,
    signal: context.signal,
    requestId: arrival.requestId,
    ip: arrival.ip,
    userAgent: arrival.userAgent,
    deadline: remaining === undefined ? undefined : Date.now() + remaining,
  };
}

/**
 * Options for a call to another service on behalf of `call`: its principal (as a hop token), its signal, what is left of
 * its deadline, its request id and trace. `timeoutMs` shortens the deadline, never lengthens it.
 */
export function onward(call: Call, timeoutMs?: number): CallOptions {
  const remaining = call.deadline === undefined ? undefined : Math.max(1, call.deadline - Date.now());
  const limit = Math.min(remaining ?? Number.POSITIVE_INFINITY, timeoutMs ?? Number.POSITIVE_INFINITY);
  return {
    signal: call.signal,
    contextValues: createContextValues().set(onwardKey, call),
    ...(Number.isFinite(limit) ? { timeoutMs: limit } : {}),
  };
}

/** The same call with another signal, for work that outlives or precedes the caller. */
export function withSignal(call: Call, signal: AbortSignal, deadline?: number): Call {
  return { ...call, signal, deadline };
}
