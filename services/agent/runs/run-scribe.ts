import { createHash } from "node:crypto";
import { RetryAdvice } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { MessageRole } from "#gen/agentmesh/agent/v1/run_pb.ts";
import { newId } from "#platform/id.ts";
import { jsonText } from "#platform/postgres/json-text.ts";
import { contentToProto } from "../domain/run-input.ts";
import type { EngineEvent, ModelUsage, StepCompleted } from "../engine/events.ts";
import { appendMessages } from "../store/message-store.ts";
import type { EventBody } from "./event-envelope.ts";
import type { RunLog } from "./run-log.ts";
import type { UsageTotal } from "./usage-total.ts";

/**
 * Writes down what the engine tells: previews are shown at once, completed items and steps become durable events, and
 * a step's messages are stored in the transaction of its step_completed. Never waits; the log tells when it is broken.
 */
export class RunScribe {
  readonly #log: RunLog;
  readonly #usage: UsageTotal;
  #steps = 0;

  constructor(log: RunLog, usage: UsageTotal) {
    this.#log = log;
    this.#usage = usage;
  }

  /** Steps that have begun. */
  get steps(): number {
    return this.#steps;
  }

  write(event: EngineEvent): void {
    switch (event.type) {
      case "message_started":
      case "text_delta":
      case "reasoning_delta":
      case "tool_call_started":
      case "tool_call_arguments_delta":
      case "tool_call_progress":
        this.#log.transient({ payload: previewPayload(event), itemId: event.itemId });
        break;
      case "step_started": {
        this.#steps++;
        const { step, provider, model } = event;
        this.#log.append({
          body: { payload: { case: "stepStarted", value: { step, provider, model } } },
          openStep: step,
        });
        break;
      }
      case "step_completed":
        this.#completeStep(event);
        break;
      default:
        this.#log.append({ body: durableBody(event) });
        break;
    }
  }

  /** Tells that the model does not see the beginning of a long session. */
  historyTrimmed(messages: number): void {
    const value = {
      reason: "HISTORY_TRIMMED",
      message: "The session is long; its oldest messages are not shown to the model.",
      facts: { messages: String(messages) },
    };
    this.#log.append({ body: { payload: { case: "notice", value } } });
  }

  #completeStep({ step, finishReason, usage, messages }: StepCompleted): void {
    const used = usageToProto(usage);
    this.#usage.add(used);
    // What models and tools wrote is kept as far as the database can: it must not cost the run.
    const stored = messages.map((message) => ({ messageId: newId("msg"), json: jsonText(message) }));
    const { sessionId, runId } = this.#log.ids;
    this.#log.append({
      body: { payload: { case: "stepCompleted", value: { step, finishReason, usage: used } } },
      openStep: 0,
      within: (tx) => appendMessages(tx, sessionId, runId, stored),
    });
  }
}

type Preview = Extract<
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

function previewPayload(event: Preview): EventBody["payload"] {
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

type Completing = Exclude<EngineEvent, Preview | { type: "step_started" | "step_completed" }>;

function durableBody(event: Completing): EventBody {
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
      const { itemId, tool, argumentsJson, risk } = event;
      const argumentsSha256 = createHash("sha256").update(argumentsJson).digest("hex");
      return { itemId, payload: { case: "toolCallRequested", value: { tool, argumentsJson, argumentsSha256, risk } } };
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
    case "notice": {
      const { reason, message, facts, retrying } = event;
      const retry = retrying ? RetryAdvice.RETRYING : RetryAdvice.UNSPECIFIED;
      return { payload: { case: "notice", value: { reason, message, facts, retry } } };
    }
  }
}

function usageToProto(usage: ModelUsage) {
  return {
    provider: usage.provider,
    model: usage.model,
    inputTokens: BigInt(usage.inputTokens),
    cacheReadTokens: BigInt(usage.cacheReadTokens),
    cacheWriteTokens: BigInt(usage.cacheWriteTokens),
    outputTokens: BigInt(usage.outputTokens),
  };
}
