import { createRegistry } from "@bufbuild/protobuf";
import { Code, type ConnectRouterOptions } from "@connectrpc/connect";
import { file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.ts";
import { AppError, raise } from "#platform/rpc/errors.ts";
import type { Observation } from "#platform/rpc/observe.ts";
import { createPipeline } from "#platform/rpc/pipeline.ts";
import { type Admission, answerKey, clientAddressKey } from "./edge/admission.ts";
import { CHALLENGE } from "./edge/credential.ts";
import type { GatewayLimits } from "./limits.ts";

/** The pipeline of the RPC door: callers are clients, admitted by their credential. */
export function createEdgePipeline(
  admission: Admission,
  observation: Observation,
  limits: GatewayLimits,
  shutdown: AbortSignal,
): ConnectRouterOptions {
  const pipeline = createPipeline({
    identify: ({ requestHeader, values }) => admission.identify(requestHeader, values.get(clientAddressKey)),
    async authenticate(context, arrival) {
      try {
        const answer = context.values.get(answerKey) ?? raise(new Error("the door said nothing of its answer"));
        return await admission.authenticate(context.method, context.requestHeader, arrival, answer);
      } catch (error) {
        if (error instanceof AppError && error.code === Code.Unauthenticated) {
          context.responseHeader.set("www-authenticate", CHALLENGE);
        }
        throw error;
      }
    },
    allowInternal: false,
    // The service that owns a message knows its rules; checking twice would cost twice.
    validate: false,
    limits: {
      readMaxBytes: limits.maxBodyBytes,
      writeMaxBytes: limits.maxResponseBytes,
      maxTimeoutMs: limits.maxTimeoutMs,
    },
    observation,
    shutdown,
  });
  // JSON answers may hold google.rpc.Status, whose details need their types.
  return { ...pipeline, jsonOptions: { registry: createRegistry(file_google_rpc_error_details) } };
}
