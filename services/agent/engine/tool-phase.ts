import type { ModelMessage } from "../llm/chat-model.ts";
import type { Context } from "./context/context.ts";
import type { EngineEvent, LoopResult, ModelUsage } from "./events.ts";
import { finalAnswer } from "./final-answer.ts";
import type { LoopInput } from "./loop-input.ts";
import type { ModelTurn } from "./model-turn.ts";
import { readOutput } from "./read-output.ts";
import { runCalls } from "./run-calls.ts";
import { say } from "./step-end.ts";
import type { PlannedCall, ToolSet } from "./tool-set.ts";
import type { ToolOutcome } from "./tool-spec.ts";

/** A step whose call of the model has ended with calls of tools. */
export interface AskedStep {
  step: number;
  finish: string;
  usage: ModelUsage;
  /** What it adds to the history; the last message is the assistant's, with the calls. */
  added: ModelMessage[];
}

/** How a run ended in this phase; the usage is its caller's. */
export type PhaseEnd = Omit<LoopResult, "usage">;

/** The second half of a step: the tools are run, and the step is completed; unless a call is suspended, then it stays open. */
export class ToolPhase {
  readonly #input: LoopInput;
  readonly #tools: ToolSet;
  readonly #context: Context;
  readonly #maxOutputBytes: number;

  constructor(input: LoopInput, tools: ToolSet, context: Context, maxOutputBytes: number) {
    this.#input = input;
    this.#tools = tools;
    this.#context = context;
    this.#maxOutputBytes = maxOutputBytes;
  }

  /** Right behind the call of the model. Undefined: the next step follows. */
  async *begin(asked: AskedStep, turn: ModelTurn): AsyncGenerator<EngineEvent, PhaseEnd | undefined, void> {
    const { step, usage, added } = asked;
    const planned = this.#tools.plan(turn.calls);
    const calls = planned.flatMap(({ action, call, spec }) =>
      action === "execute"
        ? [{ callId: call.callId, tool: call.name, argumentsJson: call.argumentsJson, risk: spec.risk ?? 0 }]
        : [],
    );
    for (const { call, spec } of planned) {
      const { callId: itemId, name: tool, argumentsJson } = call;
      const client = spec?.client === true && { client: true };
      yield { type: "tool_call_requested", itemId, tool, argumentsJson, risk: spec?.risk ?? 0, ...client };
    }
    const unfinished: EngineEvent[] = [];
    turn.discardUnfinished(unfinished);
    yield* unfinished;
    yield { type: "calls_planned", step, usage, messages: [...added], calls };
    return yield* this.#run(asked, planned, new Map());
  }

  /** In another attempt, with the outcomes that there are. */
  async *goOn(
    asked: AskedStep,
    outcomes: ReadonlyMap<string, ToolOutcome>,
  ): AsyncGenerator<EngineEvent, PhaseEnd | undefined, void> {
    return yield* this.#run(asked, this.#tools.plan(callsIn(asked.added)), outcomes);
  }

  async *#run(
    { step, finish, usage, added }: AskedStep,
    planned: readonly PlannedCall[],
    known: ReadonlyMap<string, ToolOutcome>,
  ): AsyncGenerator<EngineEvent, PhaseEnd | undefined, void> {
    const { executeTool, readToolOutput, signal, limits, newItemId } = this.#input;
    const { results, done, waiting } = yield* runCalls(planned, {
      executeTool,
      readOutput: (of) => readOutput(of, this.#context.find, readToolOutput, signal),
      signal,
      maxParallel: limits.maxParallelCalls ?? 8,
      maxOutputBytes: this.#maxOutputBytes,
      known,
    });
    if (waiting.length > 0) return { outcome: "SUSPENDED", text: "", waiting };
    if (results.some(({ truncated }) => truncated)) this.#tools.offerReading();
    const text = textIn(added);
    added.push({ role: "tool", id: newItemId("msg"), content: results });
    const answer = signal.aborted || done === undefined ? undefined : await finalAnswer(this.#input, done);
    if (answer !== undefined && text.trim() !== answer.trim()) yield* say(answer, newItemId("msg"), added);
    yield { type: "step_completed", step, finishReason: finish, usage, messages: added };
    this.#context.add(added);
    return answer === undefined ? undefined : { outcome: "DONE_TOOL", text: answer };
  }
}

function callsIn(added: readonly ModelMessage[]) {
  const last = added.at(-1);
  return last?.role === "assistant" ? last.content.filter((part) => part.type === "tool_call") : [];
}

function textIn(added: readonly ModelMessage[]): string {
  const last = added.at(-1);
  if (last?.role !== "assistant") return "";
  return last.content.reduce((text, part) => (part.type === "text" ? text + part.text : text), "");
}
