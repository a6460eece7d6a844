import type { MessageInitShape } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import type { ChatEventSchema } from "#gen/agentmesh/agent/v1/chat_service_pb.ts";
import { RunState } from "#gen/agentmesh/agent/v1/run_pb.ts";
import type { ContentPart } from "#gen/agentmesh/common/v1/content_pb.ts";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import type { Status } from "#gen/google/rpc/status_pb.ts";

export type ChatEventInit = MessageInitShape<typeof ChatEventSchema>;

/** Which turn a chat stream is about; stands in its last event. */
export interface Turn {
  runId: string;
  /** The session id that the caller knows: its own UUID when it came with one. */
  sessionId: string;
}

/** The chat client's view of a run's event; undefined for events that a chat client needs not see. Same seq. */
export function chatEvent(event: AgentEvent, turn: Turn): ChatEventInit | undefined {
  const { payload, seq, itemId } = event;
  switch (payload.case) {
    case "textDelta":
      return { seq, payload: { case: "text", value: { content: payload.value.text, itemId } } };
    case "toolCallRequested": {
      const { tool, argumentsJson: argsJson } = payload.value;
      return { seq, payload: { case: "toolCall", value: { tool, argsJson, callId: itemId } } };
    }
    case "toolCallCompleted": {
      const { tool, content, isError } = payload.value;
      return {
        seq,
        payload: { case: "toolResult", value: { tool, result: textOf(content), callId: itemId, isError } },
      };
    }
    case "itemDiscarded":
      return { seq, payload: { case: "retract", value: { itemId } } };
    case "notice": {
      const { reason, message } = payload.value;
      return { seq, payload: { case: "notice", value: { reason, message } } };
    }
    case "runCompleted": {
      const { response, usage, outcome } = payload.value;
      const value = { content: response, response, ...turn, state: RunState.COMPLETED, outcome };
      return { seq, payload: { case: "final", value: usage === undefined ? value : { ...value, usage } } };
    }
    case "runCancelled": {
      const { usage } = payload.value;
      const value = { ...turn, state: RunState.CANCELLED };
      return { seq, payload: { case: "final", value: usage === undefined ? value : { ...value, usage } } };
    }
    case "runFailed": {
      const { error, retry } = payload.value;
      return { seq, payload: { case: "error", value: { ...failureOf(error), retry, ...turn } } };
    }
    default:
      return undefined;
  }
}

/** Code, reason and message of a run's failure. */
export function failureOf(error: Status | undefined): { code: string; reason: string; message: string } {
  const info = error?.details.map((detail) => anyUnpack(detail, ErrorInfoSchema)).find((one) => one !== undefined);
  const code = Code[error?.code ?? Code.Unknown] ?? "Unknown";
  return {
    code: code
      .replace(/(?!^)[A-Z]/g, "_$&")
      .toUpperCase()
      .replace("CANCELED", "CANCELLED"),
    reason: info?.reason ?? "",
    message: error?.message ?? "",
  };
}

/** The text of content parts, images left out. */
export function textOf(content: readonly ContentPart[]): string {
  return content.map(({ part }) => (part.case === "text" ? part.value.text : "")).join("");
}
