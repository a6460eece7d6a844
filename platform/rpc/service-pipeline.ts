import type { ConnectRouterOptions, HandlerContext } from "@connectrpc/connect";
import { Code } from "@connectrpc/connect";
import { AppError } from "./errors.ts";
import type { HopVerifier } from "./hop-token.ts";
import type { Observation } from "./observe.ts";
import { createPipeline, type DoorLimits } from "./pipeline.ts";
import { requestIdOf } from "./request-id.ts";

/** Limits of the door between services. */
export const SERVICE_LIMITS: DoorLimits = {
  readMaxBytes: 16 * 1024 * 1024,
  writeMaxBytes: 64 * 1024 * 1024,
  maxTimeoutMs: 60 * 60_000,
};

/** The pipeline of a service: callers are other services, proven by a hop token that carries the principal. */
export function createServicePipeline(options: {
  verifier: HopVerifier;
  observation: Observation;
  shutdown?: AbortSignal;
}): ConnectRouterOptions {
  return createPipeline({
    identify: ({ requestHeader }) => ({
      requestId: requestIdOf(requestHeader),
      // Believed because the hop token in the same request is verified before anything uses them.
      ip: requestHeader.get("agentmesh-client-ip") ?? "",
      userAgent: decode(requestHeader.get("agentmesh-client-agent") ?? ""),
    }),
    authenticate: (context) => options.verifier.verify(bearer(context)),
    allowInternal: true,
    validate: true,
    limits: SERVICE_LIMITS,
    observation: options.observation,
    shutdown: options.shutdown,
  });
}

function bearer(context: HandlerContext): string {
  const header = context.requestHeader.get("authorization");
  if (header?.startsWith("Bearer ")) return header.slice("Bearer ".length);
  throw new AppError({
    code: Code.Unauthenticated,
    reason: "CREDENTIAL_MISSING",
    message: "Services talk to each other with hop tokens only. Call the gateway instead.",
  });
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
