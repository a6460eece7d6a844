import { Code } from "@connectrpc/connect";
import { AppError, notFound } from "#platform/rpc/errors.ts";

/** No tool of this name or id exists for the tenant. */
export function toolNotFound(): AppError {
  return notFound("tool");
}

/** The call kept no output, or is another's. */
export function outputNotFound(): AppError {
  return notFound("tool_output");
}

/** A credential that is bound to a user speaks for nobody else: the same answer as for a user who does not exist. */
export function userNotFound(): AppError {
  return notFound("user");
}

/** The key of a call names one call for ever. */
export function requestKeyReused(): AppError {
  return new AppError({
    code: Code.InvalidArgument,
    reason: "IDEMPOTENCY_KEY_REUSED",
    message: "This request id was used before for another call. Use a new one for a new call.",
    violations: [{ field: "request_id", description: "was used before for another call" }],
  });
}
