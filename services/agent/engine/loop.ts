import type { ModelMessage, UserMessage } from "../llm/chat-model.ts";
import type { ModelError } from "../llm/model-error.ts";
import { answerOf } from "./answer-of.ts";
import { Context } from "./context/context.ts";
import { ContextKeeper } from "./context/keeper.ts";
import { endedBefore } from "./ended-before.ts";
import { type EngineEvent, type LoopResult, notice } from "./events.ts";
import { finalAnswer } from "./final-answer.ts";
import { FinishRules } from "./finish-rules.ts";
import { hiddenMessage } from "./hidden-messages.ts";
import { isModelError } from "./is-model-error.ts";
import { isMalformed, Ladder } from "./ladder.ts";
import type { LoopInput } from "./loop-input.ts";
import { ModelTurn } from "./model-turn.ts";
import { repairHistory } from "./repair-history.ts";
import { leadOf, outputBytes, streamOptions, toComing, toRequest } from "./request.ts";
import { breakOff, endOfCall, say } from "./step-end.ts";
import { ToolPhase } from "./tool-phase.ts";
import { ToolSet } from "./tool-set.ts";
import { UsageTally } from "./usage-tally.ts";

const defaultEvictionBatch = 2_000;

/**
 * The agent loop: call the model, run the tools that it asks for, until it answers. It has no I/O and no clock of its own.
 *
 * It yields what happens and returns how the run ended; the terminal event is the caller's. It throws what the last model
 * of the ladder threw (a `ModelError`; of the kind `context_overflow` when the conversation does not fit and could not be
 * made to) or the signal's reason. Also then every step that was started is completed first, with what is to be kept of
 * it, so that the history stays valid. A step is one call of one model: a turn of which the call fails takes several.
 */
export async function* runLoop(input: LoopInput): AsyncGenerator<EngineEvent, LoopResult, void> {
  const { limits, signal, newItemId } = input;
  signal.throwIfAborted();
  const tools = new ToolSet(input.tools, input.requireDoneTool, limits.maxCallsPerTurn ?? 64);
  const { unfinishedWork } = input;
  const rules = new FinishRules({
    toolTurns: input.resume?.toolTurns ?? 0,
    requireDoneTool: input.requireDoneTool,
    maxIterations: limits.maxIterations,
    maxTextOnlyReplies: limits.maxTextOnlyReplies ?? 2,
    maxPauses: limits.maxPauses ?? 8,
    unfinishedWork: unfinishedWork && (() => answerOf(unfinishedWork, signal)),
  });
  const ladder = new Ladder(input.models);
  const tally = new UsageTally();
  const told = new Set<string>();
  const { messages, added: closed, dropped } = repairHistory(input.history);
  if (closed > 0 || dropped > 0) {
    const facts = { added: String(closed), dropped: String(dropped) };
    yield notice("HISTORY_REPAIRED", "An earlier run broke off; its open tool calls were closed.", { facts });
  }
  const keep = new Map(tools.list.flatMap(({ name, ephemeral = 0 }) => (ephemeral > 0 ? [[name, ephemeral]] : [])));
  const context = new Context(messages, keep, limits.evictionBatch ?? defaultEvictionBatch);
  const { openTodos, metadata } = input;
  const keeper = new ContextKeeper(context, input, { newItemId, signal, told, tally, openTodos, metadata });
  if (keep.size > 0 || hasCutOutput(messages)) tools.offerReading();

  const { openStep, nextStep = 1 } = input.resume ?? {};
  // An answer is no end of the run when somebody has spoken behind it.
  const behind = input.resume !== undefined && openStep === undefined ? yield* takeIn(input, context) : [];
  const ended = behind.length > 0 ? undefined : endedBefore(input);
  if (ended !== undefined) return { ...ended, usage: tally.list() };
  if (openStep !== undefined) {
    const phase = new ToolPhase(input, tools, context, outputBytes(ladder.rung));
    const { step, usage, messages: begun, outcomes } = openStep;
    const end = yield* phase.goOn({ step, finish: "tool_use", usage, added: [...begun] }, outcomes);
    if (end !== undefined) return { ...end, usage: tally.list() };
  }

  // Messages in front of the turn; they are kept until one of its calls succeeds.
  let lead: UserMessage[] | undefined;
  let shrunk = false;
  for (let step = nextStep; ; step++) {
    signal.throwIfAborted();
    const { rung } = ladder;
    const purpose = rules.lastCall ? "summary" : "turn";
    if (lead === undefined) yield* takeIn(input, context);
    lead ??= leadOf(input, rules.lastCall);
    const coming = toComing(input, step, rung, tools, lead);
    yield* keeper.prepare(coming);
    signal.throwIfAborted();
    // What this step adds to the history.
    const added: ModelMessage[] = [...lead];
    const turn = new ModelTurn({ step, rung, purpose, newItemId, told, tally });
    const out: EngineEvent[] = [];
    const request = toRequest(input, coming, [...context.view(), ...lead], rules.lastCall);
    yield { type: "step_started", step, provider: rung.model.provider, model: rung.modelName };
    let failure: unknown;
    let failed = false;
    try {
      // The path of every delta: no generator stands between this one and the model's.
      for await (const event of rung.model.stream(request, streamOptions(rung, signal))) {
        turn.accept(event, out);
        for (const one of out) yield one;
        out.length = 0;
      }
    } catch (error) {
      failure = error;
      failed = true;
    }

    if (failed) {
      if (signal.aborted || !isModelError(failure) || isMalformed(failure)) {
        yield* breakOff(turn, step, added, signal);
        throw failure;
      }
      const isOverflow = failure.kind === "context_overflow";
      if (isOverflow && !shrunk) {
        shrunk = true;
        yield* breakOff(turn, step, added, signal);
        const facts = { model: rung.modelName };
        yield notice("CONTEXT_OVERFLOW", "The conversation did not fit the model's window.", { facts, retrying: true });
        if (yield* keeper.shrink({ ...coming, step: step + 1 })) continue;
        const descent = ladder.descend(failure);
        if (descent === undefined) throw failure;
        yield descent;
        continue;
      }
      const descent = ladder.descend(failure);
      if (descent !== undefined) {
        yield* breakOff(turn, step, added, signal);
        yield descent;
        continue;
      }
      const answer = isOverflow ? undefined : await lastResort(input, failure);
      if (answer === undefined || signal.aborted) {
        yield* breakOff(turn, step, added, signal);
        throw signal.aborted ? signal.reason : failure;
      }
      yield* endOfCall(turn, "model_failed");
      yield answer.kind === "cached"
        ? notice("CACHED_ANSWER", "No model is available; this is an earlier answer to the same question.")
        : notice("CANNED_ANSWER", "No model is available; this is a prepared answer.");
      const text = await finalAnswer(input, answer.text);
      yield* say(text, newItemId("msg"), added);
      yield { type: "step_completed", step, finishReason: "error", usage: turn.usage, messages: added };
      return { outcome: "DEGRADED", text, usage: tally.list() };
    }

    shrunk = false;
    lead = undefined;
    const finish = turn.finish ?? "other";
    turn.book(false, out);
    const simplified = rung.kind === "simplified";
    const verdict = await rules.judge({ finish, text: turn.text, calls: turn.calls.length, simplified });
    if (verdict.next === "end") {
      const answer = await finalAnswer(input, verdict.text);
      if (answer !== verdict.text && turn.text === verdict.text) turn.rewrite(answer, out);
      verdict.text = answer;
    }
    turn.complete(out);
    if (verdict.next !== "tools") turn.discardRest("not_executed", out);
    const answered = turn.message();
    added.push(...answered);
    context.observe(turn.lastUsage, [...request.messages, ...answered], coming.frame);
    yield* out;

    if (verdict.next === "tools") {
      const phase = new ToolPhase(input, tools, context, outputBytes(rung));
      const end = yield* phase.begin({ step, finish, usage: turn.usage, added }, turn);
      if (end !== undefined) return { ...end, usage: tally.list() };
      continue;
    }
    if (verdict.next === "model" && verdict.hidden !== undefined) {
      added.push(hiddenMessage(verdict.hidden, newItemId("msg")));
    } else if (verdict.next === "end") {
      yield* verdict.notices;
    }
    yield { type: "step_completed", step, finishReason: finish, usage: turn.usage, messages: added };
    context.add(added);
    if (verdict.next === "end") return { outcome: verdict.outcome, text: verdict.text, usage: tally.list() };
  }
}

/** Takes in what the user has said meanwhile. Nothing is waited for where nothing has come. */
async function* takeIn(
  { arrivals, signal }: LoopInput,
  context: Context,
): AsyncGenerator<EngineEvent, readonly UserMessage[], void> {
  const arriving = arrivals?.();
  const arrived = arriving && (await answerOf(() => arriving, signal));
  if (arrived === undefined) return [];
  context.add(arrived);
  for (const message of arrived) yield { type: "input_accepted", message };
  return arrived;
}

function hasCutOutput(history: readonly ModelMessage[]): boolean {
  return history.some(({ role, content }) => role === "tool" && content.some(({ truncated }) => truncated === true));
}

async function lastResort({ lastResort: ask, signal }: LoopInput, error: ModelError) {
  return ask === undefined ? undefined : answerOf(() => ask(error), signal);
}
