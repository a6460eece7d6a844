import type { ToolResultPart } from "../llm/chat-model.ts";
import { capOutcome } from "./cap-outcome.ts";
import { EventBuffer } from "./event-buffer.ts";
import type { EngineEvent, ToolCallCompleted, WaitingCall } from "./events.ts";
import type { PlannedCall } from "./tool-set.ts";
import type { ExecuteTool, SuspendedCall, ToolCall, ToolOutcome } from "./tool-spec.ts";

export interface RunCallsOptions {
  executeTool: ExecuteTool;
  /** Reads an earlier output, for the built-in tool. */
  readOutput: (of: { callId: string; offset: number }) => Promise<ToolOutcome>;
  signal: AbortSignal;
  /** UTF-8 bytes of text of one result; what is more is cut. */
  maxOutputBytes: number;
  /** Calls that run at the same time. */
  maxParallel: number;
  /** Outcomes of an earlier attempt, which are not told again. */
  known: ReadonlyMap<string, ToolOutcome>;
}

export interface CallsResult {
  /** One result for each call, in call order. */
  results: ToolResultPart[];
  /** Set when a call ended the run: its answer. */
  done: string | undefined;
  /** Calls to be executed that have no outcome; the turn is not over then, and the results are not all. */
  waiting: WaitingCall[];
}

/**
 * Runs the calls of one turn. Neighbours that are marked concurrency-safe run together, the others one after the other, so
 * that a call sees what those before it did. After a call that ends the run, and after a cancellation, the rest is not
 * run but answered, so that every call has its one result. A tool that ignores the signal is not waited for. Behind a
 * call that is suspended nothing is begun.
 */
export async function* runCalls(
  planned: readonly PlannedCall[],
  options: RunCallsOptions,
): AsyncGenerator<EngineEvent, CallsResult, void> {
  const outcomes = new Map(options.known);
  const suspended = new Set<string>();
  const doneIn = (calls: readonly PlannedCall[]) =>
    calls.map(({ call }) => outcomes.get(call.callId)?.done?.message).find((message) => message !== undefined);
  let done = doneIn(planned);
  const open = planned.filter(({ call }) => !outcomes.has(call.callId));
  for (let i = 0; i < open.length && done === undefined && suspended.size === 0 && !options.signal.aborted; ) {
    const batch = nextBatch(open, i);
    i += batch.length;
    yield* runBatch(batch, options, outcomes, suspended);
    done = doneIn(batch);
  }
  if (suspended.size > 0 && done === undefined && !options.signal.aborted) {
    const waiting = open.filter(({ action, call }) => action === "execute" && !outcomes.has(call.callId));
    return { results: [], done, waiting: waiting.map(({ call }) => call) };
  }
  const results: ToolResultPart[] = [];
  for (const { call } of planned) {
    let outcome = outcomes.get(call.callId);
    if (outcome === undefined) {
      outcome = failed(options.signal.aborted ? cancelledText : skippedText);
      yield completed(call, outcome);
    }
    const { content, isError = false, truncated } = outcome;
    const result: ToolResultPart = { type: "tool_result", callId: call.callId, tool: call.name, content, isError };
    results.push(truncated === true ? { ...result, truncated } : result);
  }
  return { results, done, waiting: [] };
}

const cancelledText = "The call was cancelled.";
const skippedText = "The call was not made: the task had ended before it.";

function nextBatch(planned: readonly PlannedCall[], from: number): PlannedCall[] {
  const safe = (one: PlannedCall | undefined) => one !== undefined && isRun(one) && one.spec?.concurrencySafe === true;
  let end = from + 1;
  if (safe(planned[from])) while (safe(planned[end])) end++;
  return planned.slice(from, end);
}

function isRun({ action }: PlannedCall): boolean {
  return action === "execute" || action === "read";
}

async function* runBatch(
  batch: readonly PlannedCall[],
  options: RunCallsOptions,
  outcomes: Map<string, ToolOutcome>,
  suspended: Set<string>,
): AsyncGenerator<EngineEvent, void, void> {
  const { signal, maxParallel } = options;
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
    const outcome = await perform(planned, options, (event) => {
      if (!over && !outcomes.has(callId)) buffer.push(event);
    });
    // After a cancellation the call has its result already.
    if (over) return;
    running--;
    if ("suspended" in outcome) {
      suspended.add(callId);
      buffer.wake();
      startNext();
      return;
    }
    outcomes.set(callId, outcome);
    buffer.push(completed(planned.call, outcome));
    if (outcome.escalation !== undefined) buffer.push({ type: "escalated", ...outcome.escalation });
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
  { executeTool, readOutput, signal, maxOutputBytes }: RunCallsOptions,
  emit: (event: EngineEvent) => void,
): Promise<ToolOutcome | SuspendedCall> {
  const { call } = planned;
  if (planned.action === "refuse") return failed(planned.problem);
  if (planned.action === "done")
    return { content: [{ type: "text", text: "Done." }], done: { message: planned.message } };
  try {
    if (planned.action === "read") return await readOutput(planned.of);
    const outcome = await executeTool(call, signal, ({ message, fraction }) =>
      emit({ type: "tool_call_progress", itemId: call.callId, message, fraction }),
    );
    return "suspended" in outcome ? outcome : capOutcome(outcome, maxOutputBytes, call.callId);
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
    ...(outcome.truncated === true && { truncated: true }),
    ...(outcome.callsLeft !== undefined && { callsLeft: outcome.callsLeft }),
  };
}

function failed(text: string): ToolOutcome {
  return { content: [{ type: "text", text }], isError: true };
}
