import type { ChatModel, ModelMessage, ModelRequest, RequestMetadata, StreamOptions } from "../llm/chat-model.ts";
import { type EngineEvent, type LoopResult, notice } from "./events.ts";
import { FinishRules } from "./finish-rules.ts";
import { hiddenMessage, lastAnswer } from "./hidden-messages.ts";
import { ModelTurn, type NewItemId } from "./model-turn.ts";
import { repairHistory } from "./repair-history.ts";
import { runCalls } from "./run-calls.ts";
import { ToolSet } from "./tool-set.ts";
import type { ExecuteTool, ToolSpec } from "./tool-spec.ts";
import { UsageTally } from "./usage-tally.ts";

export interface LoopLimits {
  /** Turns in which tools are called. After them there is one more call of the model, without tools, for an answer. */
  maxIterations: number;
  /** Output tokens of one call of the model. */
  maxTokens: number;
  /** With `requireDoneTool`: answers in a row without a call, after which the run ends as INCOMPLETE. Default 2. */
  maxTextOnlyReplies?: number;
  /** Times in a row that a model may pause and is asked to go on. Default 8. */
  maxPauses?: number;
  /** Calls in one turn; those above it are refused. Default 64. */
  maxCallsPerTurn?: number;
  /** Calls that run at the same time. Default 8. */
  maxParallelCalls?: number;
}

export interface LoopInput {
  model: ChatModel;
  modelName: string;
  /** Empty: none. It is configuration and in every request, never part of the history. */
  system: string;
  /** The conversation, with the message that is to be answered at its end. */
  history: readonly ModelMessage[];
  tools: readonly ToolSpec[];
  executeTool: ExecuteTool;
  limits: LoopLimits;
  /** Only the built-in `done` tool ends the run. */
  requireDoneTool: boolean;
  newItemId: NewItemId;
  signal: AbortSignal;
  temperature?: number;
  /** A tenant's own key for the model. */
  apiKey?: string;
  metadata?: RequestMetadata;
  /** Asked once, when the model has answered: a text about work that is still open gives it one more turn. */
  unfinishedWork?: () => Promise<string | undefined>;
}

/**
 * The agent loop: call the model, run the tools that it asks for, until it answers. It has no I/O and no clock of its own.
 *
 * It yields what happens and returns how the run ended; the terminal event is the caller's. It throws what the model threw
 * (a `ModelError`) or the signal's reason. Also then every step that was started is completed first, with what is to be
 * kept of it, so that the history stays valid.
 */
export async function* runLoop(input: LoopInput): AsyncGenerator<EngineEvent, LoopResult, void> {
  const { model, modelName, limits, signal } = input;
  signal.throwIfAborted();
  const tools = new ToolSet(input.tools, input.requireDoneTool, limits.maxCallsPerTurn ?? 64);
  const rules = new FinishRules({
    requireDoneTool: input.requireDoneTool,
    maxIterations: limits.maxIterations,
    maxTextOnlyReplies: limits.maxTextOnlyReplies ?? 2,
    maxPauses: limits.maxPauses ?? 8,
    unfinishedWork: input.unfinishedWork,
  });
  const usage = new UsageTally();
  const told = new Set<string>();
  const { messages: history, added: closed, dropped } = repairHistory(input.history);
  if (closed > 0 || dropped > 0) {
    const facts = { added: String(closed), dropped: String(dropped) };
    yield notice("HISTORY_REPAIRED", "An earlier run broke off; its open tool calls were closed.", { facts });
  }

  for (let step = 1; ; step++) {
    signal.throwIfAborted();
    // What this step adds to the history.
    const added: ModelMessage[] = rules.lastCall ? [hiddenMessage(lastAnswer)] : [];
    const turn = new ModelTurn(step, model.provider, modelName, input.newItemId, told);
    const out: EngineEvent[] = [];
    yield { type: "step_started", step, provider: model.provider, model: modelName };
    try {
      const request = toRequest(input, [...history, ...added], tools, rules.lastCall);
      // The path of every delta: no generator stands between this one and the model's.
      for await (const event of model.stream(request, streamOptions(input))) {
        turn.accept(event, out);
        for (const one of out) yield one;
        out.length = 0;
      }
    } catch (error) {
      yield* breakOff(turn, added, step, signal);
      throw error;
    }

    const finish = turn.finish ?? "other";
    usage.add(turn.usage);
    const verdict = await rules.judge({ finish, text: turn.text, calls: turn.calls.length });
    turn.complete(out);
    if (verdict.next !== "tools") turn.discardRest("not_executed", out);
    added.push(...turn.message());
    yield* out;

    let answer: string | undefined;
    if (verdict.next === "tools") {
      const planned = tools.plan(turn.calls);
      for (const { call, spec } of planned) {
        const { callId: itemId, name: tool, argumentsJson } = call;
        yield { type: "tool_call_requested", itemId, tool, argumentsJson, risk: spec?.risk ?? 0 };
      }
      const maxParallel = limits.maxParallelCalls ?? 8;
      const { results, done } = yield* runCalls(planned, { executeTool: input.executeTool, signal, maxParallel });
      added.push({ role: "tool", content: results });
      if (done !== undefined && !signal.aborted) {
        answer = done;
        if (turn.text.trim() !== done.trim()) yield* say(done, input.newItemId("msg"), added);
      }
    } else if (verdict.next === "model" && verdict.hidden !== undefined) {
      added.push(verdict.hidden);
    } else if (verdict.next === "end") {
      yield* verdict.notices;
    }
    yield { type: "step_completed", step, finishReason: finish, usage: turn.usage, messages: added };
    history.push(...added);

    if (verdict.next === "end") return { outcome: verdict.outcome, text: verdict.text, usage: usage.list() };
    if (answer !== undefined) return { outcome: "DONE_TOOL", text: answer, usage: usage.list() };
  }
}

function toRequest(input: LoopInput, messages: ModelMessage[], tools: ToolSet, lastCall: boolean): ModelRequest {
  return {
    model: input.modelName,
    system: input.system,
    messages,
    // Tools stay in the last request too: the provider's cache keeps its prefix, and a history with calls needs them.
    tools: tools.list,
    toolChoice: lastCall ? "none" : "auto",
    maxTokens: input.limits.maxTokens,
    ...(input.temperature !== undefined && { temperature: input.temperature }),
    ...(input.metadata !== undefined && { metadata: input.metadata }),
  };
}

function streamOptions({ signal, apiKey }: LoopInput): StreamOptions {
  return { signal, mayDiscard: true, ...(apiKey !== undefined && { apiKey }) };
}

/** Completes a step of which the model's call did not end: a cancelled answer is kept as far as it was shown. */
function breakOff(turn: ModelTurn, added: ModelMessage[], step: number, signal: AbortSignal): EngineEvent[] {
  const out: EngineEvent[] = [];
  if (signal.aborted) turn.complete(out);
  turn.discardRest(signal.aborted ? "cancelled" : "model_failed", out);
  const kept = signal.aborted ? turn.message() : [];
  const finishReason = signal.aborted ? "cancelled" : "error";
  const messages = kept.length > 0 ? [...added, ...kept] : [];
  out.push({ type: "step_completed", step, finishReason, usage: turn.usage, messages });
  return out;
}

/** The answer that a tool ended the run with, as a message of the assistant. */
function say(text: string, itemId: string, added: ModelMessage[]): EngineEvent[] {
  if (text.trim() === "") return [];
  added.push({ role: "assistant", content: [{ type: "text", text }] });
  return [
    { type: "message_started", itemId },
    { type: "text_delta", itemId, offset: 0, text },
    { type: "message_completed", itemId, parts: [{ type: "text", text }] },
  ];
}
