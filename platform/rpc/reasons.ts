import { ErrorReason } from "#gen/agentmesh/common/v1/error_reason_pb.ts";

/** A machine-readable reason of an error: a name of `agentmesh.common.v1.ErrorReason`. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

/** The `domain` of every `google.rpc.ErrorInfo` that this service writes. */
export const ERROR_DOMAIN = "agentmesh.dev";

/** Every reason that the contract lists. */
export const reasons = Object.keys(ErrorReason).filter((name) => name !== "UNSPECIFIED") as readonly Reason[];
