import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { ChatService } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunService } from "#gen/agentmesh/agent/v1/run_service_pb.ts";

/** What a method costs the mesh: a run is worth many model calls, a write a transaction, a read a query. */
export type MethodClass = "runs" | "writes" | "reads";

const STARTS_RUN: ReadonlySet<DescMethod> = new Set([
  ChatService.method.chat,
  ChatService.method.chatStream,
  RunService.method.startRun,
]);

/** Reads are the methods that say `idempotency_level = NO_SIDE_EFFECTS`. */
export function classOf(method: DescMethod): MethodClass {
  if (STARTS_RUN.has(method)) return "runs";
  return method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS ? "reads" : "writes";
}
