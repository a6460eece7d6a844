import { create, toBinary } from "@bufbuild/protobuf";
import { ChatService, ChatStreamRequestSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import type { TurnOptions } from "./caller.ts";

export const CHAT_STREAM_PATH = `/${ChatService.typeName}/ChatStream`;

/** A request in its envelope: no flags, four bytes of length, the message. */
export function chatEnvelope(message: string, { cancelOnDisconnect = false }: TurnOptions): Buffer {
  return envelope(toBinary(ChatStreamRequestSchema, create(ChatStreamRequestSchema, { message, cancelOnDisconnect })));
}

export function envelope(bytes: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}
