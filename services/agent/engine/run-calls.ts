import type { ContentPart, ToolResultPart } from "../llm/chat-model.ts";
import { EventBuffer } from "./event-buffer.ts";
import type { EngineEvent, ToolCallCompleted } from "./events.ts";
import type { PlannedCall } from "./tool-set.ts";
import type { ExecuteTool, ToolCall, ToolOutcome } from "./tool-spec.ts";

export interface RunCallsOptions {
  executeTool: ExecuteTool;
  signal: AbortSignal;
  /** Calls that run at the same time. */
  maxParallel: number;
}

export interface CallsResult {
  /** One result for each call, in call order. */
  results: ToolResultPart[];
  /** Set when a call ended the run: its answer. */
  done: string | undefined;
}

/**
 * Runs the calls of one turn. Neighbours that are marked concurrency-safe run together, the others one after the other, so
 * that a call sees what those before it did. After a call that ends the run, and after a cancellation, the rest is not
 * run but answered, so that every call has its one result. A tool that ignores the signal is not waited for.
 */
export async function* runCalls(
  planned: readonly PlannedCall[],
  options: RunCallsOptions,
): AsyncGenerator<EngineEvent, CallsResult, void> {
  const outcomes = new Map<string, ToolOutcome>();
  let done: string | undefined;
  for (let i = 0; i < planned.length && done === undefined && !options.signal.aborted; ) {
    const batch = nextBatch(planned, i);
    i += batch.length;
    yield* runBatch(batch, options, outcomes);
    for (const { call } of batch) done ??= outcomes.get(call.callId)?.done?.message;
  }
  const results: ToolResultPart[] = [];
  for (const { call } of planned) {
    let outcome = outcomes.get(call.callId);
    if (outcome === undefined) {
      outcome = failed(options.signal.aborted ? cancelledText : skippedText);
      yield completed(call, outcome);
    }
    const { content, isError = false } = outcome;
    results.push({ type: "tool_result", callId: call.callId, content, isError });
  }
  return { results, done };
}

const cancelledText = "The call was cancelled.";
const skippedText = "The call was not made: the task had ended before it.";

function nextBatch(planned: readonly PlannedCall[], from: number): PlannedCall[] {
  const safe = (one: PlannedCall | undefined) => one?.action === "execute" && one.spec.concurrencySafe === true;
  let end = from + 1;
  if (safe(planned[from])) while (safe(planned[end])) end++;
  return planned.slice(from, end);
}

async function* runBatch(
  batch: readonly PlannedCall[],
  { executeTool, signal, maxParallel }: RunCallsOptions,
  outcomes: Map<string, ToolOutcome>,
): AsyncGenerator<EngineEvent, void, void> {
  const buffer = new EventBuffer();
  const waiting = [...batch];
  let running = 0;
  let over = false;
  const startNext = () => {
    while (running < maxParallel && !signal.aborted) {
      const next = waiting.shift();
      if (next === undefined) return;
      running++;
      void run(next);
    }
  };
  const run = async (planned: PlannedCall) => {
    const { callId } = planned.call;
    const outcome = await perform(planned, executeTool, signal, (event) => {
      if (!over && !outcomes.has(callId)) buffer.push(event);
    });
    // After a cancellation the call has its result already.
    if (over) return;
    running--;
    outcomes.set(callId, outcome);
    buffer.push(completed(planned.call, outcome));
    startNext();
  };
  const onAbort = () => buffer.wake();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    startNext();
    while (running > 0 && !signal.aborted) for (const event of await buffer.take()) yield event;
    if (buffer.size > 0) for (const event of await buffer.take()) yield event;
  } finally {
    over = true;
    signal.removeEventListener("abort", onAbort);
  }
}

/** Never rejects. */
async function perform(
  planned: PlannedCall,
  executeTool: ExecuteTool,
  signal: AbortSignal,
  emit: (event: EngineEvent) => void,
): Promise<ToolOutcome> {
  const { call } = planned;
  if (planned.action === "refuse") return failed(planned.problem);
  if (planned.action === "done")
    return { content: [{ type: "text", text: "Done." }], done: { message: planned.message } };
  try {
    const outcome = await executeTool(call, signal, ({ message, fraction }) =>
      emit({ type: "tool_call_progress", itemId: call.callId, message, fraction }),
    );
    return { ...outcome, content: outcome.content.map(wellFormed) };
  } catch {
    return failed(signal.aborted ? cancelledText : `The tool "${call.name}" failed.`);
  }
}

function completed({ callId, name }: ToolCall, outcome: ToolOutcome): ToolCallCompleted {
  return {
    type: "tool_call_completed",
    itemId: callId,
    tool: name,
    content: outcome.content,
    structuredJson: outcome.structuredJson ?? "",
    isError: outcome.isError ?? false,
    durationMs: outcome.durationMs ?? 0,
  };
}

function failed(text: string): ToolOutcome {
  return { content: [{ type: "text", text }], isError: true };
}

/** Half a surrogate pair would be refused by the provider, with the whole history it stands in. */
function wellFormed(part: ContentPart): ContentPart {
  return part.type === "text" && !part.text.isWellFormed() ? { ...part, text: part.text.toWellFormed() } : part;
}
