import type { DescMethod } from "@bufbuild/protobuf";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import type { GatewayLimits } from "./limits.ts";

/**
 * The deadline of a call whose caller set none, in milliseconds; undefined for streams, which end with the run that they
 * follow.
 */
export function defaultTimeoutMs(method: DescMethod, limits: GatewayLimits): number | undefined {
  if (method.methodKind !== "unary") return undefined;
  return method === ChatService.method.chat ? limits.chatTimeoutMs : limits.unaryTimeoutMs;
}
