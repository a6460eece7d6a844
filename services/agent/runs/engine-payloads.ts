import { createHash } from "node:crypto";
import { RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { MessageRole } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { contentToProto } from "../domain/run-input.ts";
import type { EngineEvent } from "../engine/events.ts";
import type { EventBody } from "./event-envelope.ts";

/** What is shown while it comes, and stored nowhere. */
export type Preview = Extract<
  EngineEvent,
  {
    type:
      | "message_started"
      | "text_delta"
      | "reasoning_delta"
      | "tool_call_started"
      | "tool_call_arguments_delta"
      | "tool_call_progress";
  }
>;

/** The wire form of a preview. */
export function previewPayload(event: Preview): EventBody["payload"] {
  switch (event.type) {
    case "message_started":
      return { case: "messageStarted", value: { role: MessageRole.ASSISTANT } };
    case "text_delta":
      return { case: "textDelta", value: { offset: BigInt(event.offset), text: event.text } };
    case "reasoning_delta":
      return { case: "reasoningDelta", value: { offset: BigInt(event.offset), text: event.text } };
    case "tool_call_started":
      return { case: "toolCallStarted", value: { tool: event.tool } };
    case "tool_call_arguments_delta": {
      const { offset, jsonFragment } = event;
      return { case: "toolCallArgumentsDelta", value: { offset: BigInt(offset), jsonFragment } };
    }
    case "tool_call_progress":
      return { case: "toolCallProgress", value: { message: event.message, fraction: event.fraction } };
  }
}

/** What is stored as it is. */
export type Completing = Exclude<
  EngineEvent,
  Preview | { type: "step_started" | "step_completed" | "model_called" | "calls_planned" | "input_accepted" }
>;

/** The wire form of what is stored. */
export function durableBody(event: Completing): EventBody {
  switch (event.type) {
    case "message_completed": {
      const { itemId, parts } = event;
      return { itemId, payload: { case: "messageCompleted", value: { parts: parts.map(contentToProto) } } };
    }
    case "reasoning_completed":
      return { itemId: event.itemId, payload: { case: "reasoningCompleted", value: { text: event.text } } };
    case "item_discarded":
      return { payload: { case: "itemDiscarded", value: { step: event.step, cause: event.cause } } };
    case "tool_call_requested": {
      const { itemId, tool, argumentsJson, risk, client: clientExecuted = false } = event;
      const argumentsSha256 = createHash("sha256").update(argumentsJson).digest("hex");
      const value = { tool, argumentsJson, argumentsSha256, risk, clientExecuted };
      return { itemId, payload: { case: "toolCallRequested", value } };
    }
    case "tool_call_completed": {
      const { itemId, tool, structuredJson, isError } = event;
      const content = event.content.map(contentToProto);
      const durationMs = BigInt(Math.round(event.durationMs));
      return {
        itemId,
        payload: { case: "toolCallCompleted", value: { tool, structuredJson, isError, content, durationMs } },
      };
    }
    case "context_compacted": {
      const { summary, messages, firstKeptMessageId } = event;
      const tokens = { tokensBefore: BigInt(event.tokensBefore), tokensAfter: BigInt(event.tokensAfter) };
      return { payload: { case: "contextCompacted", value: { summary, messages, firstKeptMessageId, ...tokens } } };
    }
    case "tool_outputs_evicted": {
      const { callIds, tokensSaved } = event;
      return { payload: { case: "toolOutputsEvicted", value: { callIds, tokensSaved: BigInt(tokensSaved) } } };
    }
    case "escalated":
      return { payload: { case: "escalated", value: { reason: event.reason, priority: event.priority } } };
    case "notice": {
      const { reason, message, facts, retrying } = event;
      const retry = retrying ? RetryAdvice.RETRYING : RetryAdvice.UNSPECIFIED;
      return { payload: { case: "notice", value: { reason, message, facts, retry } } };
    }
  }
}
