import { type AppError, notFound } from "#platform/rpc/errors.ts";

/** What a tool throws to tell the model what went wrong. The message is shown as it is, so it names no internals. */
export class ToolError extends Error {
  override readonly name = "ToolError";
}

/** No tool of this name or id exists for the tenant. */
export function toolNotFound(): AppError {
  return notFound("tool");
}
