import type { ConnectRouterOptions, HandlerContext, Interceptor } from "@connectrpc/connect";
import { Code } from "@connectrpc/connect";
import { Exposure } from "#gen/agentmesh/common/v1/auth_option_pb.ts";
import { type Arrival, arrivalKey } from "./call.ts";
import { toConnectError } from "./connect-error.ts";
import { AppError } from "./errors.ts";
import { authRule } from "./method-rules.ts";
import { createObserver, type Observation } from "./observe.ts";
import { type Principal, requireAnyScope } from "./principal.ts";
import { createValidator } from "./validate.ts";

/** Limits of one door; every figure is documented beside the value and tested. */
export interface DoorLimits {
  /** Largest request message, in bytes. */
  readonly readMaxBytes: number;
  /** Largest response message, in bytes. */
  readonly writeMaxBytes: number;
  /** Longest deadline that a caller may ask for, in milliseconds. */
  readonly maxTimeoutMs: number;
}

export interface PipelineOptions {
  /** Learns request id, address and user agent of a call from its headers. */
  identify(context: HandlerContext): Pick<Arrival, "requestId" | "ip" | "userAgent">;
  /** Verifies the credential of a call from its headers, before the body is read. Throws UNAUTHENTICATED. */
  authenticate(context: HandlerContext, arrival: Arrival): Promise<Principal>;
  /** True where INTERNAL methods may be called. */
  allowInternal: boolean;
  /** Whether request messages are validated here; the gateway leaves it to the service that owns the message. */
  validate: boolean;
  limits: DoorLimits;
  /** Counts and logs calls; refusals too. */
  observation: Observation;
  /** Ends every call of this door when it aborts. */
  shutdown?: AbortSignal | undefined;
}

/**
 * What every call passes, outermost first, with the reason for its place. A test asserts this order.
 * The first four run in the request gate, before a byte of the body is read.
 */
export const STAGES = [
  { name: "identify", why: "a refusal must be found again in the log by its request id" },
  {
    name: "observe",
    why: "counts, logs and maps every outcome, refusals included; so it is outside of all that can refuse",
  },
  { name: "authenticate", why: "a body is read for known callers only" },
  { name: "authorize", why: "the method's declared scope is decided from claims alone, before any lookup" },
  { name: "validate", why: "handlers see only messages that satisfy the contract" },
  { name: "handler", why: "translates and authorises on resources" },
] as const;

/** Router options that put the stages around every method of a door. */
export function createPipeline(options: PipelineOptions): ConnectRouterOptions {
  const observer = createObserver(options.observation);
  const interceptors: Interceptor[] = [observer.interceptor];
  if (options.validate) interceptors.push(createValidator());
  return {
    interceptors,
    ...options.limits,
    // gzip on small messages costs more than it saves, and it hides the flow control of streams.
    acceptCompression: [],
    ...(options.shutdown === undefined ? {} : { shutdownSignal: options.shutdown }),
    async requestGate(context) {
      const arrival: Arrival = { ...options.identify(context), principal: undefined, startedAt: performance.now() };
      context.values.set(arrivalKey, arrival);
      context.responseHeader.set("x-request-id", arrival.requestId);
      try {
        arrival.principal = await admit(context, arrival, options);
      } catch (error) {
        const refusal = toConnectError(error, arrival.requestId);
        observer.refused(context, arrival, refusal, error);
        throw refusal;
      }
      observer.watch(context, arrival);
    },
  };
}

async function admit(context: HandlerContext, arrival: Arrival, options: PipelineOptions) {
  const rule = authRule(context.method);
  switch (rule.exposure) {
    case Exposure.ANONYMOUS:
      return undefined;
    case Exposure.INTERNAL:
      if (!options.allowInternal) break;
      return authorized(await options.authenticate(context, arrival), rule.anyScope);
    case Exposure.PUBLIC_API:
      return authorized(await options.authenticate(context, arrival), rule.anyScope);
    default:
      break;
  }
  throw new AppError({
    code: Code.Unimplemented,
    reason: "ROUTE_NOT_FOUND",
    message: "This server does not offer that method.",
  });
}

function authorized(principal: Principal, anyScope: readonly string[]): Principal {
  requireAnyScope(principal, anyScope);
  return principal;
}
