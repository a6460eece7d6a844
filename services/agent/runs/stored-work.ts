import type { AgentEvent } from "#gen/agentmesh/agent/v1/agent_event_pb.ts";
import { contentFromProto } from "../domain/run-input.ts";
import type { ResumedWork } from "../engine/loop-input.ts";
import { doneToolName, type ToolOutcome } from "../engine/tool-spec.ts";
import type { ModelMessage, ToolCallPart } from "../llm/chat-model.ts";
import type { EarlierWork, StepDraft } from "../store/resume-store.ts";

/** Types of the events that {@link storedWork} reads. */
export const WORK_EVENTS = ["step_started", "step_completed", "tool_call_completed"] as const;

/**
 * How far a run had come, from its events and its draft: the journal of its tools is in the log, as a
 * `tool_call_requested` before each call and a `tool_call_completed` behind it. `earlier`: of the runs that it continues.
 */
export function storedWork(
  events: readonly AgentEvent[],
  draft: StepDraft | undefined,
  earlier: EarlierWork = { nextStep: 1, toolTurns: 0 },
): ResumedWork {
  let { nextStep, toolTurns, lastFinish } = earlier;
  const outcomes = new Map<string, ToolOutcome>();
  const asked = new Map(draft === undefined ? [] : callsIn(draft.messages).map((call) => [call.callId, call]));
  for (const { payload, itemId } of events) {
    if (payload.case === "stepStarted") nextStep = Math.max(nextStep, payload.value.step + 1);
    if (payload.case === "stepCompleted") {
      nextStep = Math.max(nextStep, payload.value.step + 1);
      lastFinish = payload.value.finishReason;
      if (lastFinish === "tool_use") toolTurns++;
    }
    const call = asked.get(itemId);
    if (payload.case !== "toolCallCompleted" || call === undefined) continue;
    const { content, isError, structuredJson, durationMs } = payload.value;
    outcomes.set(itemId, {
      content: content.map(contentFromProto),
      isError,
      structuredJson,
      durationMs: Number(durationMs),
      ...doneBy(call, isError),
    });
  }
  if (draft === undefined) return { nextStep, toolTurns, ...(lastFinish !== undefined && { lastFinish }) };
  const { step, usage, messages } = draft;
  return {
    nextStep,
    toolTurns: toolTurns + 1,
    ...(lastFinish !== undefined && { lastFinish }),
    openStep: { step, usage, messages, outcomes },
  };
}

/** The call that ends the run, had it been made. */
function doneBy({ name, argumentsJson }: ToolCallPart, isError: boolean): Pick<ToolOutcome, "done"> {
  if (name !== doneToolName || isError) return {};
  const { message } = JSON.parse(argumentsJson) as { message: string };
  return { done: { message } };
}

function callsIn(messages: readonly ModelMessage[]): ToolCallPart[] {
  const last = messages.at(-1);
  return last?.role === "assistant" ? last.content.filter((part) => part.type === "tool_call") : [];
}
